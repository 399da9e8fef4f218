"""Commands of `oss-lab` in this package; its entry points `oss_lab.commands` name them."""

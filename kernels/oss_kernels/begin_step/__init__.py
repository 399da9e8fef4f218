"""The start of a decode step, from token ids on the device. `reference` defines it."""

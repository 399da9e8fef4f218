"""`python -m oss_lab.nano.training` is `oss-lab train`."""

import sys

from oss_lab.cli.main import main

sys.exit(main(["train", *sys.argv[1:]]))

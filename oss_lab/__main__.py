"""`python -m oss_lab` runs the command `oss-lab`."""

import sys

from oss_lab.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

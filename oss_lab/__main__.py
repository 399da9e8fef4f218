"""`python -m oss_lab` is `oss-lab`."""

import sys

from oss_lab.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

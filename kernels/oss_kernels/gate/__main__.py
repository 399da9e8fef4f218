"""`python -m oss_kernels.gate`; see `command`."""

import sys
from importlib.util import find_spec


def main() -> None:
    if find_spec("triton") is None:
        sys.exit("oss_kernels.gate: triton is not installed (`pip install triton`)")
    from oss_kernels.gate import command

    command.main()


if __name__ == "__main__":
    main()

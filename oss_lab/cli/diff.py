"""`oss-lab diff A B`: where two traces part. Nothing is printed where they hold the same.

Two runs that round differently differ everywhere by a little: --tolerance says what counts. The
exit status is 0 either way.
"""

import argparse
from pathlib import Path

from oss_lab.errors import LabError


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("diff", help="where two traces part", description=__doc__)
    parser.add_argument("first", metavar="A", type=Path)
    parser.add_argument("second", metavar="B", type=Path)
    parser.add_argument(
        "--tolerance", type=float, default=0.0, help="differences up to this are none (default: 0)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if not args.tolerance >= 0:
        raise LabError(f"--tolerance is {args.tolerance}; it must be 0 or more")
    from oss_lab.record.diff import differences
    from oss_lab.record.trace import read_trace

    for line in differences(read_trace(args.first), read_trace(args.second), args.tolerance):
        print(line)
    return 0

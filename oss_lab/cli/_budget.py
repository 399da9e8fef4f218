"""--budget: how many GiB a command may write."""

import argparse
import math

from oss_lab.errors import LabError


def add_budget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--budget", type=float, default=2, metavar="GIB", help="refuse more (default: 2)"
    )


def budget_bytes(gib: float) -> int:
    """Raises LabError unless it is a number above 0."""
    if not 0 < gib < math.inf:
        raise LabError(f"--budget is {gib}; it must be a number above 0")
    return int(gib * 2**30)

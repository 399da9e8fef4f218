"""`oss-lab diff A B`: where two traces differ. Prints nothing if they are equal.

Two runs that round differently differ slightly everywhere; set --tolerance to ignore that. Another
engine, precision, device, version or length can round differently; a hint on stderr names the
tolerance for the tokens that both runs have in common. The exit status is 0 in all cases.
"""

import sys
import warnings
from pathlib import Path
from typing import Annotated

from typer import Argument, Option


def run(
    first: Annotated[Path, Argument(metavar="A")],
    second: Annotated[Path, Argument(metavar="B")],
    tolerance: Annotated[float, Option(min=0, help="ignore differences up to this size")] = 0,
) -> int:
    """Show where two traces differ."""
    from oss_lab.record.diff import compare_traces, find_tolerance
    from oss_lab.record.trace import read_trace

    traces = read_trace(first), read_trace(second)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lines = list(compare_traces(*traces, tolerance))
    for warning in caught:
        print(f"oss-lab: {warning.message}", file=sys.stderr)
    for line in lines:
        print(line)
    needed = find_tolerance(*traces)
    if needed is not None and needed > tolerance:
        print(
            f"oss-lab: where the tokens are equal, these runs only round differently:"
            f" --tolerance {needed:g} ignores that",
            file=sys.stderr,
        )
    return 0

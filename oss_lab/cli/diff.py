"""`oss-lab diff A B`: where two traces part. Nothing is printed where they hold the same.

Two runs that round differently differ everywhere by a little: --tolerance says what counts. The
exit status is 0 either way.
"""

import sys
import warnings
from pathlib import Path
from typing import Annotated

from typer import Argument, Option


def run(
    first: Annotated[Path, Argument(metavar="A")],
    second: Annotated[Path, Argument(metavar="B")],
    tolerance: Annotated[float, Option(min=0, help="ignore differences up to this")] = 0,
) -> int:
    """Show where two traces part."""
    from oss_lab.record.diff import differences
    from oss_lab.record.trace import read_trace

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lines = list(differences(read_trace(first), read_trace(second), tolerance))
    for warning in caught:
        print(f"oss-lab: {warning.message}", file=sys.stderr)
    for line in lines:
        print(line)
    return 0

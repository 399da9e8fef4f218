"""`python -m oss_lab.bench`: how fast the model is on a CPU, beside transformers on its weights.

A benchmark, not a test. Both run in this process, in one dtype, on the same tokens, by turns, so
that a ratio means something where absolute figures do not; transformers runs as it does by default
(eager attention, the only one it has for gpt-oss on a CPU, and dequantized experts). Ours is the
readable model or, with --kernels cpu, the one on packed experts. Medians and ranges are printed.

Decoding takes its time between a program's threads, so a busy machine slows it out of proportion:
the report says when other programs had too much of it. Left out: compilation, batches, GPUs.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from oss_lab.bench.command import BUSY, computing, random_ids, run_bench
from oss_lab.bench.measure import Row, measure
from oss_lab.bench.sides import Ours, Theirs
from oss_lab.bench.tasks import LONGEST, tasks
from oss_lab.checkpoint.read import Checkpoint


def main() -> int:
    return run_bench("oss_lab.bench", __doc__, measured, show)


def measured(checkpoint: Checkpoint, arguments: Namespace) -> list[Row]:
    """Both sides on one checkpoint."""
    dtype, kernels = computing(arguments)
    ours, theirs = Ours(checkpoint, dtype, kernels), Theirs(checkpoint, dtype)
    tokens = random_ids(checkpoint, LONGEST)
    return [measure(task, ours, theirs, arguments.repeats) for task in tasks(tokens)]


def show(found: dict[str, Any], rows: Sequence[Row]) -> None:
    """A table for people."""
    title = "{checkpoint}, {dtype}, {device[threads]} threads, {kernels} kernels"
    shown = Table(
        title=title.format(**found),
        caption="median (lowest – highest); × is how many times faster we are",
    )
    shown.add_column("task")
    for column in ("", "oss_lab", "transformers", "×", "others"):
        shown.add_column(column, justify="right")
    for row in rows:
        digits = 1 if row.unit == "ms" else 0
        spreads = [
            f"{side.median:,.{digits}f} ({side.low:,.{digits}f} – {side.high:,.{digits}f})"
            for side in (row.ours, row.theirs)
        ]
        shown.add_row(row.task, row.unit, *spreads, f"{row.ratio:.2f}", f"{row.others:.0%}")
    console = Console()
    console.print(shown)
    if not found["quiet"]:
        console.print(BUSY)


if __name__ == "__main__":
    sys.exit(main())

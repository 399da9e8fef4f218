"""`python -m oss_lab.bench.overhead`: what recording adds to the time of the same model.

Nothing, the cheap points, the residual stream and all of tier 2 are recorded by turns, token by
token behind a prompt and over a prompt. Kernels that do not hand a point out leave the forward to
the reference, which is part of the price: the report says who computed. Points that need logits
have them computed for every token of a prompt, where otherwise the last one's do.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from oss_lab.bench.command import BUSY, computing, random_ids, run_bench
from oss_lab.bench.recording import LONGEST, NOTHING, Cost, costs, tasks
from oss_lab.checkpoint.load import load_model
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.engine.choice import Engines


def main() -> int:
    return run_bench("oss_lab.bench.overhead", __doc__, measured, show)


def measured(checkpoint: Checkpoint, arguments: Namespace) -> list[Cost]:
    """Every task of one model."""
    dtype, kernels = computing(arguments)
    engines = Engines(load_model(checkpoint, dtype=dtype), kernels, is_auto=True)
    ids = random_ids(checkpoint, LONGEST)
    return [cost for task in tasks(ids) for cost in costs(engines, task, arguments.repeats)]


def show(found: dict[str, Any], rows: Sequence[Cost]) -> None:
    """A table for people."""
    title = "{checkpoint}, {dtype}, {device[threads]} threads, {kernels} kernels, {repeats} rounds"
    shown = Table(
        title=title.format(**found),
        caption="median (lowest – highest); over: median of the rounds' ratios to nothing"
        " recorded, with a bootstrapped interval at 95 %",
    )
    for column in ("task", "recorded", "computed by"):
        shown.add_column(column)
    for column in ("ms a token", "over", "bytes a token", "others"):
        shown.add_column(column, justify="right")
    for row in rows:
        ms = f"{row.ms.median:.3g} ({row.ms.low:.3g} – {row.ms.high:.3g})"
        low, high = row.interval
        over = "" if row.recorded == NOTHING else f"{row.over:+.1%} ({low:+.1%} – {high:+.1%})"
        size, others = f"{row.bytes:,.0f}", f"{row.others:.0%}"
        shown.add_row(row.task, row.recorded, row.kernels, ms, over, size, others)
    console = Console()
    console.print(shown)
    if not found["quiet"]:
        console.print(BUSY)


if __name__ == "__main__":
    sys.exit(main())

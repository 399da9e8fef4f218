"""`python -m oss_lab.bench.overhead`: how much time recording adds to the same model.

The selections are: nothing, the points of tier 1 with and without those that need logits, the
residual stream, and all points of tier 2. They take turns, both while decoding and during the
prefill of a prompt. If the kernels do not expose a requested point, the reference model computes
the forward pass. That is part of the cost, and the report names the kernels that were used. If a
selected point needs logits, they are computed for every token of the prompt, otherwise for the last
token only.
"""

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from oss_lab.bench.command import (
    BUSY,
    choose_dtype_and_kernels,
    describe_run,
    make_random_ids,
    open_requested,
    parse_arguments,
)
from oss_lab.bench.recording import LONGEST, NOTHING, RecordingCost, make_tasks, measure_costs
from oss_lab.checkpoint.load import load_model
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.engine.choice import Engines
from oss_lab.errors import LabError

PROGRAM = "oss_lab.bench.overhead"


def main() -> int:
    arguments = parse_arguments(PROGRAM, __doc__)
    try:
        with open_requested(arguments) as checkpoint:
            rows = measure_rows(checkpoint, arguments)
    except LabError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    report = describe_run(arguments, [row.others for row in rows])
    if arguments.json:
        print(json.dumps(report | {"rows": [asdict(row) for row in rows]}))
    else:
        print_table(report, rows)
    return 0


def measure_rows(checkpoint: Checkpoint, arguments: Namespace) -> list[RecordingCost]:
    """Time every task of one model."""
    dtype, kernels = choose_dtype_and_kernels(arguments)
    engines = Engines(load_model(checkpoint, dtype=dtype), kernels, is_auto=True)
    ids = make_random_ids(checkpoint, LONGEST)
    return [
        cost for task in make_tasks(ids) for cost in measure_costs(engines, task, arguments.repeats)
    ]


def print_table(report: dict[str, Any], rows: Sequence[RecordingCost]) -> None:
    """Print the result as a table."""
    title = "{checkpoint}, {dtype}, {device[threads]} threads, {kernels} kernels, {repeats} rounds"
    table = Table(
        title=title.format(**report),
        caption="median (lowest – highest); over: extra time relative to recording nothing, the"
        " median over rounds, with a 95% bootstrap interval",
    )
    for column in ("task", "recorded", "computed by"):
        table.add_column(column)
    for column in ("ms per token", "over", "bytes per token", "others"):
        table.add_column(column, justify="right")
    for row in rows:
        ms = f"{row.ms.median:.3g} ({row.ms.low:.3g} – {row.ms.high:.3g})"
        low, high = row.interval
        over = "" if row.recorded == NOTHING else f"{row.over:+.1%} ({low:+.1%} – {high:+.1%})"
        size, others = f"{row.bytes:,.0f}", f"{row.others:.0%}"
        table.add_row(row.task, row.recorded, row.kernels, ms, over, size, others)
    console = Console()
    console.print(table)
    if not report["quiet"]:
        console.print(BUSY)


if __name__ == "__main__":
    sys.exit(main())

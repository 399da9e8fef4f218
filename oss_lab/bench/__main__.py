"""`python -m oss_lab.bench`: compare our speed on a CPU with transformers on the same weights.

A benchmark, not a test. Both sides run in this process with the same dtype and the same tokens.
They alternate, so the ratio is reliable even if absolute times vary. transformers runs with its
defaults: eager attention, the only kind it has for gpt-oss on a CPU, and dequantized experts. Our
side is the reference model or, with --kernels cpu, the kernels on packed experts. Prints medians
and ranges.

Decoding synchronizes its threads often, so a busy machine slows it out of proportion. The report
warns if other programs used too much of the CPU. Left out: compilation, batches, GPUs.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from oss_lab.bench.command import BUSY, choose_dtype_and_kernels, make_random_ids, run_bench
from oss_lab.bench.measure import TaskResult, measure_task
from oss_lab.bench.sides import Ours, Theirs
from oss_lab.bench.tasks import LONGEST, make_tasks
from oss_lab.checkpoint.read import Checkpoint
from oss_lab.cli._pipe import make_console, run_program


def main() -> int:
    return run_bench("oss_lab.bench", __doc__, measure_rows, print_table)


def measure_rows(checkpoint: Checkpoint, arguments: Namespace) -> list[TaskResult]:
    """Time both sides on one checkpoint."""
    dtype, kernels = choose_dtype_and_kernels(arguments)
    ours, theirs = Ours(checkpoint, dtype, kernels), Theirs(checkpoint, dtype)
    tokens = make_random_ids(checkpoint, LONGEST)
    return [measure_task(task, ours, theirs, arguments.repeats) for task in make_tasks(tokens)]


def print_table(report: dict[str, Any], rows: Sequence[TaskResult]) -> None:
    """Print the result as a table."""
    title = "{checkpoint}, {dtype}, {device[threads]} threads, {kernels} kernels"
    table = Table(
        title=title.format(**report),
        caption="median (lowest – highest); ×: how many times faster oss_lab is; "
        "others: share of a core that other programs used",
    )
    table.add_column("task")
    for column in ("", "oss_lab", "transformers", "×", "others"):
        table.add_column(column, justify="right")
    for row in rows:
        digits = 1 if row.unit == "ms" else 0
        spreads = [
            f"{side.median:,.{digits}f} ({side.low:,.{digits}f} – {side.high:,.{digits}f})"
            for side in (row.ours, row.theirs)
        ]
        table.add_row(row.task, row.unit, *spreads, f"{row.ratio:.2f}", f"{row.others:.0%}")
    console = make_console()
    console.print(table)
    if not report["quiet"]:
        console.print(BUSY)


if __name__ == "__main__":
    sys.exit(run_program(main))

"""`python -m oss_lab.bench`: how fast the model is on a CPU, beside transformers on its weights.

A benchmark, not a test. Both run in this process, in one dtype, on the same tokens, by turns, so
that a ratio means something where absolute figures do not; transformers runs as it does by default
(eager attention, the only one it has for gpt-oss on a CPU, and dequantised experts). Ours is the
readable model or, with --kernels cpu, the one on packed experts. Medians and ranges are printed.

Decoding takes its time between a program's threads, so a busy machine slows it out of proportion:
the report says when other programs had too much of it. Left out: compilation, batches, GPUs.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from oss_kernels.bench import record
from oss_kernels.bench.options import positive
from oss_kernels.bench.quiet import MOST, require_linux
from rich.console import Console
from rich.table import Table

from oss_lab.bench.measure import Row, measure
from oss_lab.bench.sides import Ours, Theirs
from oss_lab.bench.tasks import LONGEST, tasks
from oss_lab.checkpoint.random_weights import random_tensors
from oss_lab.checkpoint.read import open_checkpoint
from oss_lab.checkpoint.write import write_checkpoint
from oss_lab.config import GPT_OSS_20B
from oss_lab.errors import LabError
from oss_lab.loading import DTYPES, chosen_kernels

# Which layers slide follows from their number.
SLICE = replace(GPT_OSS_20B, num_hidden_layers=4, vocab_size=32_000, layer_types=())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m oss_lab.bench", description=__doc__)
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--checkpoint", default="nano", metavar="PATH", help="default: nano")
    model.add_argument(
        "--slice",
        action="store_true",
        help="four layers of 20b's widths with random weights, made for the run (2.3 GB)",
    )
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--repeats", type=positive, default=7)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--kernels", choices=("reference", "cpu"), default="reference")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()
    require_linux("oss_lab.bench")
    torch.set_num_threads(arguments.threads)
    try:
        if arguments.slice:
            with tempfile.TemporaryDirectory(prefix="oss-lab-") as folder:
                write_checkpoint(folder, SLICE, random_tensors(SLICE))
                rows = measured(folder, arguments)
        else:
            rows = measured(arguments.checkpoint, arguments)
    except LabError as error:
        print(f"oss_lab.bench: {error}", file=sys.stderr)
        return 1
    found = record.stamp("cpu") | {
        "checkpoint": "slice" if arguments.slice else arguments.checkpoint,
        "dtype": arguments.dtype,
        "kernels": arguments.kernels,
        "repeats": arguments.repeats,
        "quiet": statistics.median(row.others for row in rows) <= MOST,
    }
    if arguments.json:
        print(json.dumps(found | {"rows": [asdict(row) for row in rows]}))
    else:
        show(found, rows)
    return 0


def measured(checkpoint: str, arguments: argparse.Namespace) -> list[Row]:
    """Both sides on one checkpoint."""
    opened = open_checkpoint(checkpoint)
    dtype = DTYPES[arguments.dtype]
    kernels = chosen_kernels(arguments.kernels, torch.device("cpu"))
    ours, theirs = Ours(opened, dtype, kernels), Theirs(opened, dtype)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(opened.config.vocab_size, (1, LONGEST), generator=generator)
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
        console.print("Other programs kept the processor busy: these figures say little.")


if __name__ == "__main__":
    sys.exit(main())

"""What the benches of the model have in common: their options, the checkpoint, what is reported."""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from oss_kernels.backends import Backend
from oss_kernels.bench import record
from oss_kernels.bench.options import positive
from oss_kernels.bench.quiet import MOST, require_linux

from oss_lab.checkpoint.load import DTYPES
from oss_lab.checkpoint.random_weights import random_tensors
from oss_lab.checkpoint.read import Checkpoint, open_checkpoint
from oss_lab.checkpoint.write import write_checkpoint
from oss_lab.config import GPT_OSS_20B
from oss_lab.engine.choice import chosen_kernels
from oss_lab.errors import LabError

# Which layers slide follows from their number.
SLICE = replace(GPT_OSS_20B, num_hidden_layers=4, vocab_size=32_000, layer_types=())
BUSY = "Other programs kept the processor busy: these figures say little."


class Timed(Protocol):
    """A row of a report; `others` is the share of a core that other programs had meanwhile."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def others(self) -> float: ...


Row = TypeVar("Row", bound=Timed)


def run_bench(
    program: str,
    description: str | None,
    measured: Callable[[Checkpoint, argparse.Namespace], list[Row]],
    show: Callable[[dict[str, Any], Sequence[Row]], None],
) -> int:
    """Run a bench and report it, as JSON or by `show`; the exit status."""
    arguments = parsed(program, description)
    try:
        with opened(arguments) as checkpoint:
            rows = measured(checkpoint, arguments)
    except LabError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    found = stamped(arguments, [row.others for row in rows])
    if arguments.json:
        print(json.dumps(found | {"rows": [asdict(row) for row in rows]}))
    else:
        show(found, rows)
    return 0


def parsed(program: str, description: str | None) -> argparse.Namespace:
    """The command line; the process then computes in as many threads as it asks for."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
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
    require_linux(program)
    torch.set_num_threads(arguments.threads)
    return arguments


@contextmanager
def opened(arguments: argparse.Namespace) -> Iterator[Checkpoint]:
    """The checkpoint that was asked for.

    Raises:
        LabError: it is none.
    """
    if not arguments.slice:
        yield open_checkpoint(arguments.checkpoint)
        return
    with tempfile.TemporaryDirectory(prefix="oss-lab-") as folder:
        write_checkpoint(folder, SLICE, random_tensors(SLICE))
        yield open_checkpoint(folder)


def computing(arguments: argparse.Namespace) -> tuple[torch.dtype, Backend]:
    """In what, and by which kernels."""
    return DTYPES[arguments.dtype], chosen_kernels(arguments.kernels, torch.device("cpu"))[0]


def random_ids(checkpoint: Checkpoint, count: int) -> torch.Tensor:
    """[1, count], always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(checkpoint.config.vocab_size, (1, count), generator=generator)


def stamped(arguments: argparse.Namespace, others: Sequence[float]) -> dict[str, Any]:
    """What a report says besides its rows; `others` are the rows' shares of a core."""
    return record.stamp("cpu") | {
        "checkpoint": "slice" if arguments.slice else arguments.checkpoint,
        "dtype": arguments.dtype,
        "kernels": arguments.kernels,
        "repeats": arguments.repeats,
        "quiet": statistics.median(others) <= MOST,
    }

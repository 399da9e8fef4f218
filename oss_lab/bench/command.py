"""Shared parts of the model's benchmarks: options, the checkpoint, the report."""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from oss_kernels.backends import Backend
from oss_kernels.bench import record
from oss_kernels.bench.options import parse_positive
from oss_kernels.bench.quiet import MAX_OTHERS, require_linux
from torch import Tensor

from oss_lab.checkpoint.load import DTYPES
from oss_lab.checkpoint.random_weights import random_tensors
from oss_lab.checkpoint.read import Checkpoint, open_checkpoint
from oss_lab.checkpoint.write import write_checkpoint
from oss_lab.config import GPT_OSS_20B
from oss_lab.engine.choice import choose_kernels

# `layer_types=()` lets the configuration derive which layers are sliding from their number.
SLICE = replace(GPT_OSS_20B, num_hidden_layers=4, vocab_size=32_000, layer_types=())
SEED = 0  # of the random tokens, keys and values
BUSY = "Other programs kept the processor busy, so these numbers are unreliable. Run this again."

AddOptions = Callable[[argparse.ArgumentParser], None]


def parse_arguments(
    program: str, description: str | None, add_options: AddOptions = lambda parser: None
) -> argparse.Namespace:
    """Parse the command line, and set the number of threads that it requests."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--checkpoint", default="nano", metavar="PATH", help="default: nano")
    model.add_argument(
        "--slice",
        action="store_true",
        help="four layers with 20b's widths and random weights, made for this run (2.3 GB)",
    )
    parser.add_argument("--threads", type=parse_positive, default=2)
    parser.add_argument("--repeats", type=parse_positive, default=7)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--kernels", choices=("reference", "cpu"), default="reference")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    add_options(parser)
    arguments = parser.parse_args()
    require_linux(program)
    torch.set_num_threads(arguments.threads)
    return arguments


@contextmanager
def open_requested(arguments: argparse.Namespace) -> Iterator[Checkpoint]:
    """The requested checkpoint. A slice exists only inside this context.

    Raises:
        LabError: the path is not a checkpoint.
    """
    if not arguments.slice:
        yield open_checkpoint(arguments.checkpoint)
        return
    with tempfile.TemporaryDirectory(prefix="oss-lab-") as folder:
        write_checkpoint(folder, SLICE, random_tensors(SLICE))
        yield open_checkpoint(folder)


def choose_dtype_and_kernels(arguments: argparse.Namespace) -> tuple[torch.dtype, Backend]:
    """The dtype and the kernels to compute with."""
    return DTYPES[arguments.dtype], choose_kernels(arguments.kernels, torch.device("cpu"))[0]


def make_random_ids(
    checkpoint: Checkpoint, count: int, batch: int = 1
) -> Int[Tensor, "batch count"]:
    """Random token ids, the same in every run."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.randint(checkpoint.config.vocab_size, (batch, count), generator=generator)


def describe_run(arguments: argparse.Namespace, others: Sequence[float]) -> dict[str, Any]:
    """Everything in a report except its rows. `others` are the rows' shares of a core."""
    stamp = record.build_stamp("cpu")
    stamp["device"]["instructions"] = find_instructions()
    return stamp | {
        "checkpoint": "slice" if arguments.slice else Path(arguments.checkpoint).name,
        "dtype": arguments.dtype,
        "kernels": arguments.kernels,
        "repeats": arguments.repeats,
        "seed": SEED,
        "quiet": statistics.median(others) <= MAX_OTHERS,
    }


def find_instructions() -> list[str]:
    """The processor's vector and matrix instruction sets, as Linux names them."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return [flag for flag in flags.split()[2:] if flag.startswith(("avx", "amx", "fma", "sve"))]

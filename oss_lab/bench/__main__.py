"""`python -m oss_lab.bench`: how fast the model is on a CPU, beside transformers on its weights.

A benchmark, not a test. Both run in this process, in one dtype, on the same tokens, by turns, so
that a ratio means something where absolute figures do not; transformers runs as it does by default
(eager attention, the only one it has for gpt-oss on a CPU, and dequantised experts). Ours is the
readable model or, with --kernels cpu, the one on packed experts. Medians and ranges are printed.

Decoding takes its time between a program's threads, so a busy machine slows it out of proportion:
each sample records how long the main thread was kept waiting, and the report says when that was
too long to trust the figures. Left out: compilation, batches, GPUs.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from oss_kernels.backends import Backend
from rich.console import Console
from rich.table import Table
from torch import Tensor

from oss_lab.cache import KVCache
from oss_lab.checkpoint.random_weights import random_tensors
from oss_lab.checkpoint.read import Checkpoint, open_checkpoint
from oss_lab.checkpoint.write import write_checkpoint
from oss_lab.config import GPT_OSS_20B
from oss_lab.errors import LabError
from oss_lab.generate import generate, prefill
from oss_lab.loading import DTYPES, chosen_kernels, load_model
from oss_lab.model import Transformer

CPU = torch.device("cpu")
PROMPT, NEW = 100, 200
PREFILLS = (128, 512, 2048)
SLICE = replace(GPT_OSS_20B, num_hidden_layers=4, vocab_size=32_000, layer_types=())
MOST_WAITING = 0.1  # of a sample's time, at the median


class Side(Protocol):
    """What is timed, of us and of them."""

    def first_token(self, tokens: Tensor) -> int:
        """Prefill an empty cache and choose a token."""
        ...

    def decoder(self, tokens: Tensor) -> Callable[[], object]:
        """Prefill now; what is returned decodes NEW tokens, each fed back."""
        ...

    def generate(self, tokens: Tensor) -> None:
        """The library's own loop: prefill, and NEW tokens."""
        ...


@dataclass(frozen=True)
class Sample:
    """One run of one task: wall seconds, and the share of them that the main thread waited."""

    seconds: float
    waited: float


@dataclass(frozen=True)
class Spread:
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One task, both sides, in `unit`.

    Attributes:
        ratio: how many times faster we are, by the medians.
        waited: the median share of time for which something else had the processor.
    """

    task: str
    unit: str
    ours: Spread
    theirs: Spread
    ratio: float
    waited: float


@dataclass(frozen=True)
class Task:
    """`prepare(side)` gives what is timed: the work of `tokens` tokens (None: milliseconds)."""

    name: str
    tokens: int | None
    prepare: Callable[[Side], Callable[[], object]]

    def figure(self, seconds: float) -> float:
        return 1000 * seconds if self.tokens is None else self.tokens / seconds


class Ours:
    """`oss_lab.model` under `oss_lab.generate`."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype, kernels: Backend) -> None:
        self.model: Transformer = load_model(checkpoint, dtype=dtype, kernels=kernels)

    def first_token(self, tokens: Tensor) -> int:
        return int(prefill(self.model, tokens, KVCache(self.model.config)).argmax())

    def decoder(self, tokens: Tensor) -> Callable[[], object]:
        cache = KVCache(self.model.config)
        following = prefill(self.model, tokens, cache).argmax(-1)

        def decode() -> None:
            token = following
            for _ in range(NEW):
                token = self.model(token[:, None], cache, last=1)[:, -1].argmax(-1)

        return decode

    def generate(self, tokens: Tensor) -> None:
        written = generate(self.model, tokens.tolist(), stop=(), max_tokens=NEW)
        assert sum(1 for _ in written) == NEW


class Theirs:
    """transformers' GptOssForCausalLM from the Hugging Face layout, experts dequantised at load."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype) -> None:
        try:
            import transformers
            from transformers.utils.quantization_config import Mxfp4Config
        except ModuleNotFoundError:
            raise LabError(
                'transformers is not installed: `pip install "oss-lab[test]"` adds it'
            ) from None
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        with tempfile.TemporaryDirectory() as folder:
            tensors = dict(checkpoint.tensors())
            write_checkpoint(folder, checkpoint.config, tensors, layout="huggingface")
            self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                quantization_config=Mxfp4Config(dequantize=True),
                local_files_only=True,
            ).eval()

    def first_token(self, tokens: Tensor) -> int:
        return int(self.model(tokens, use_cache=True, logits_to_keep=1).logits.argmax())

    def decoder(self, tokens: Tensor) -> Callable[[], object]:
        out = self.model(tokens, use_cache=True, logits_to_keep=1)
        cache, following = out.past_key_values, out.logits[:, -1].argmax(-1)

        def decode() -> None:
            token = following
            for _ in range(NEW):
                out = self.model(token[:, None], past_key_values=cache, use_cache=True)
                token = out.logits[:, -1].argmax(-1)

        return decode

    def generate(self, tokens: Tensor) -> None:
        written = self.model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=NEW,
            min_new_tokens=NEW,
            do_sample=False,
            pad_token_id=0,
        )
        assert written.shape[1] == tokens.shape[1] + NEW


def timed(task: Callable[[], object]) -> Sample:
    wall, busy = time.perf_counter(), time.thread_time()
    task()
    seconds = time.perf_counter() - wall
    return Sample(seconds, max(0.0, 1 - (time.thread_time() - busy) / seconds))


def tasks(tokens: Tensor) -> Iterator[Task]:
    prompt = tokens[:, :PROMPT]
    yield Task(f"decode {NEW} after {PROMPT}", NEW, lambda side: side.decoder(prompt))
    yield Task(f"generate() {NEW} after {PROMPT}", NEW, lambda side: partial(side.generate, prompt))
    for length in PREFILLS:
        first = tokens[:, :length]
        yield Task(f"prefill {length}", length, lambda side, x=first: partial(side.first_token, x))
    yield Task(f"first token of {PROMPT}", None, lambda side: partial(side.first_token, prompt))


@torch.inference_mode()
def measure(task: Task, ours: Side, theirs: Side, repeats: int) -> Row:
    samples: list[tuple[Sample, Sample]] = []
    for _ in range(repeats + 1):
        samples.append((timed(task.prepare(ours)), timed(task.prepare(theirs))))
    del samples[0]  # it warmed caches up
    seconds = [[sample.seconds for sample in side] for side in zip(*samples, strict=True)]
    medians = [statistics.median(each) for each in seconds]
    spreads = [
        Spread(task.figure(median), *sorted(task.figure(extreme(each)) for extreme in (min, max)))
        for median, each in zip(medians, seconds, strict=True)
    ]
    return Row(
        task.name,
        "ms" if task.tokens is None else "tok/s",
        *spreads,
        ratio=medians[1] / medians[0],
        waited=statistics.median(sample.waited for pair in samples for sample in pair),
    )


def table(rows: list[Row], title: str) -> Table:
    shown = Table(
        title=title, caption="median (lowest – highest); × is how many times faster we are"
    )
    shown.add_column("task")
    for column in ("", "oss_lab", "transformers", "×", "waited"):
        shown.add_column(column, justify="right")
    for row in rows:
        digits = 1 if row.unit == "ms" else 0
        spreads = [
            f"{side.median:,.{digits}f} ({side.low:,.{digits}f} – {side.high:,.{digits}f})"
            for side in (row.ours, row.theirs)
        ]
        shown.add_row(row.task, row.unit, *spreads, f"{row.ratio:.2f}", f"{row.waited:.0%}")
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m oss_lab.bench", description=__doc__)
    parser.add_argument(
        "--checkpoint",
        default="nano",
        metavar="PATH",
        help="default: nano; slice: four layers of 20b's widths, random (2.3 GB, made for the run)",
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--kernels", choices=("reference", "cpu"), default="reference")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory(prefix="oss-lab-") as folder:
        return report(arguments, Path(folder))


def report(arguments: argparse.Namespace, folder: Path) -> int:
    """Measure and print; `folder` is for what the run makes."""
    try:
        source: str | Path = arguments.checkpoint
        if source == "slice":
            source = folder
            write_checkpoint(folder, SLICE, random_tensors(SLICE))
        checkpoint = open_checkpoint(source)
        dtype, kernels = DTYPES[arguments.dtype], chosen_kernels(arguments.kernels, CPU)
        ours, theirs = Ours(checkpoint, dtype, kernels), Theirs(checkpoint, dtype)
    except LabError as error:
        print(f"oss_lab.bench: {error}", file=sys.stderr)
        return 1
    generator = torch.Generator().manual_seed(0)
    vocabulary = checkpoint.config.vocab_size
    tokens = torch.randint(vocabulary, (1, max(*PREFILLS, PROMPT)), generator=generator)
    rows = [measure(task, ours, theirs, arguments.repeats) for task in tasks(tokens)]
    quiet = statistics.median(row.waited for row in rows) <= MOST_WAITING
    if arguments.json:
        settings = {
            "dtype": arguments.dtype,
            "kernels": arguments.kernels,
            "threads": arguments.threads,
            "repeats": arguments.repeats,
            "quiet": quiet,
        }
        print(json.dumps(settings | {"rows": [asdict(row) for row in rows]}))
        return 0
    console = Console()
    title = f"{arguments.checkpoint}, {arguments.dtype}, {arguments.threads} threads"
    title += f", {arguments.kernels} kernels"
    console.print(table(rows, title))
    if not quiet:
        console.print("Other programs kept the processor busy: these figures say little.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

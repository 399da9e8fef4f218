"""The CPU kernels at gpt-oss's sizes, as a share of the speed at which memory can be read.

Copies of the weights are cycled so that each call finds its own in memory and not in the
third-level cache. Reading is timed as a torch sum over as many bytes, in turn with the kernels. A
sample during which other processes had more than 8 % of a core is thrown away and counted.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from oss_kernels.bench import record
from oss_kernels.bench.quiet import MOST, Busy
from oss_kernels.cases import Make
from oss_kernels.cpu import machine
from oss_kernels.experts.cpu import expert_mlp
from oss_kernels.experts.weights import ExpertWeights
from oss_kernels.linear.cpu import linear
from oss_kernels.mxfp4_linear.cpu import mxfp4_linear
from oss_kernels.shapes import GPT_OSS_20B

MEMORY = 200e6  # bytes that copies take at least, beyond any third-level cache here
SAMPLE = 0.15  # seconds: 15 ticks of the clock that tells whether others were at work


@dataclass(frozen=True)
class Timed:
    """One thing to time.

    Attributes:
        bytes: of weights, each read once a call.
        calls: one a copy, to be made in turn.
    """

    name: str
    bytes: int
    calls: Sequence[Callable[[], object]]


@dataclass(frozen=True)
class Row:
    """Medians over `samples` quiet samples; `discarded` others. The spread is of microseconds."""

    name: str
    microseconds: float
    low: float
    high: float
    gigabytes_per_second: float
    share_of_reading: float
    samples: int
    discarded: int


def copies(size: int) -> range:
    return range(max(2, -(-int(MEMORY) // size)))


def mxfp4(make: Make, rows: int, columns: int, tokens: int) -> Timed:
    size = rows * columns // 32 * 17
    x, bias = make.normal(tokens, columns), make.normal(rows)
    weights = [make.mxfp4(rows, columns=columns) for _ in copies(size)]
    calls = [lambda w=w: mxfp4_linear(x, w[0], w[1], bias) for w in weights]
    return Timed(f"MXFP4 {columns} -> {rows}, {tokens} tokens", size, calls)


def bfloat16(
    make: Make, rows: int, columns: int, tokens: int, by: str, function: Callable
) -> Timed:
    size = 2 * rows * columns
    x, bias = make.normal(tokens, columns), make.normal(rows)
    weights = [make.normal(rows, columns) for _ in copies(size)]
    calls = [lambda w=w: function(x, w, bias) for w in weights]
    return Timed(f"bfloat16 {columns} -> {rows}, {tokens} tokens, {by}", size, calls)


def experts(make: Make, tokens: int) -> Timed:
    """One layer of 20b, its 32 experts; tokens choose at random, another choice each call."""
    s = GPT_OSS_20B
    layer = ExpertWeights(
        *make.mxfp4(s.experts, 2 * s.width, columns=s.hidden),
        make.normal(s.experts, 2 * s.width),
        *make.mxfp4(s.experts, s.hidden, columns=s.width),
        make.normal(s.experts, s.hidden),
    )
    x = make.normal(tokens, s.hidden)
    weights = torch.full((tokens, s.slots), 1 / s.slots)
    # One token: all experts in turn, so that none is still in the cache.
    order = torch.randperm(s.experts).view(-1, s.slots).int()
    choices = [order[[(i + token) % len(order) for token in range(tokens)]] for i in range(8)]
    one = 3 * s.width * s.hidden // 32 * 17
    size = one * statistics.mean(len(ids.unique()) for ids in choices)
    calls = [
        lambda ids=ids: expert_mlp(x, ids, weights, layer, alpha=1.702, limit=7.0)
        for ids in choices
    ]
    return Timed(f"experts of one layer, {tokens} tokens", int(size), calls)


def reading() -> Timed:
    size = 16_000_000
    arrays = [torch.ones(size // 8, dtype=torch.int64) for _ in copies(size)]
    return Timed("reading", size, [lambda a=a: a.sum() for a in arrays])


def everything() -> list[Timed]:
    s, make = GPT_OSS_20B, Make("cpu")
    made = [reading(), mxfp4(make, 2 * s.width, s.hidden, 1), mxfp4(make, s.hidden, s.width, 1)]
    made += [
        bfloat16(make, rows, s.hidden, 1, by, function)
        for rows in (s.qkv_rows, s.vocab // 8)
        for by, function in (("rows", linear), ("torch", F.linear))
    ]
    made += [experts(make, 1)]
    for tokens in (4, 8, 9, 32):
        made.append(mxfp4(make, 2 * s.width, s.hidden, tokens))
    for tokens in (4, 5):
        made.append(bfloat16(make, s.qkv_rows, s.hidden, tokens, "rows", linear))
    return made


def sample(timed: Timed, position: int) -> tuple[float, float, int]:
    """Seconds a call, the share of a core that others had, and the next copy's position."""
    before, began, count = Busy.now(), time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < SAMPLE or count == 0:
        timed.calls[(position + count) % len(timed.calls)]()
        count += 1
    return elapsed / count, Busy.now().others_since(before, elapsed), position + count


def measure(things: list[Timed], wanted: int) -> Iterator[Row]:
    """Samples by turns, so that what disturbs one disturbs all; at most 3 * wanted of each."""
    seconds: dict[str, list[float]] = {timed.name: [] for timed in things}
    discarded = dict.fromkeys(seconds, 0)
    positions = dict.fromkeys(seconds, 0)
    for timed in things:
        for call in timed.calls:  # compile, and touch all memory
            call()
    for _ in range(3 * wanted):
        for timed in things:
            if len(seconds[timed.name]) == wanted:
                continue
            each, others, positions[timed.name] = sample(timed, positions[timed.name])
            if others > MOST:
                discarded[timed.name] += 1
            else:
                seconds[timed.name].append(each)
    reading = seconds["reading"]
    if not reading:
        sys.exit("oss_kernels.bench: other processes kept the machine busy; run it when it is idle")
    fastest = things[0].bytes / statistics.median(reading)
    for timed in things:
        if own := seconds[timed.name]:
            median = statistics.median(own)
            rate = timed.bytes / median
            yield Row(
                timed.name,
                1e6 * median,
                1e6 * min(own),
                1e6 * max(own),
                rate / 1e9,
                rate / fastest,
                len(own),
                discarded[timed.name],
            )
        else:
            print(f"{timed.name}: no quiet sample, {discarded[timed.name]} discarded")


def main(threads: int | None, samples: int, results: Path | None) -> None:
    if not Path("/proc/stat").exists():
        sys.exit("oss_kernels.bench: it needs Linux, to tell whether the machine was quiet")
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    found: dict[str, Any] = record.stamp("cpu") | {"paths": machine.paths()}
    print(f"{found['device']['name']}, {found['device']['threads']} threads")
    head = ("", "us", "low", "high", "GB/s", "% of reading", "n", "discarded")
    print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
    found["rows"] = []
    for row in measure(everything(), samples):
        cells = (f"{row.microseconds:.0f}", f"{row.low:.0f}", f"{row.high:.0f}")
        cells += (f"{row.gigabytes_per_second:.1f}", f"{row.share_of_reading:.0%}")
        print(f"| {row.name} | {' | '.join(cells)} | {row.samples} | {row.discarded} |")
        found["rows"].append(asdict(row))
    if results:
        print(record.write(found, results, "cpu"))

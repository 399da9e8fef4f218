"""The CPU kernels at gpt-oss's sizes, as a share of the speed at which memory can be read.

Everything is timed by turns, reading too, so that what disturbs one disturbs all. A sample during
which other processes had more than 8 % of a core is thrown away and counted.
"""

import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from oss_kernels.bench import record
from oss_kernels.bench.cpu_work import READING, Timed, everything
from oss_kernels.bench.quiet import MOST, Busy
from oss_kernels.cpu import machine

SAMPLE = 0.15  # seconds: 15 ticks of the clock that tells whether others were at work


@dataclass(frozen=True)
class Row:
    """Medians over `samples` quiet samples; `discarded` others. low and high are microseconds."""

    name: str
    microseconds: float
    low: float
    high: float
    gigabytes_per_second: float
    share_of_reading: float
    gigaflops: float
    samples: int
    discarded: int


def sample(timed: Timed, position: int) -> tuple[float, float, int]:
    """Seconds a call, the share of a core that others had, and the next copy's position."""
    before, began, count = Busy.now(), time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < SAMPLE or count == 0:
        timed.calls[(position + count) % len(timed.calls)]()
        count += 1
    return elapsed / count, Busy.now().others_since(before, elapsed), position + count


def measure(things: list[Timed], wanted: int) -> Iterator[Row]:
    """A row for each; at most 3 * wanted samples of each are tried."""
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
    if not seconds[READING]:
        sys.exit("oss_kernels.bench: other processes kept the machine busy; run it when it is idle")
    (size,) = (timed.bytes for timed in things if timed.name == READING)
    fastest = size / statistics.median(seconds[READING])
    for timed in things:
        if own := seconds[timed.name]:
            yield row(timed, own, fastest, discarded[timed.name])
        else:
            print(f"{timed.name}: no quiet sample, {discarded[timed.name]} discarded")


def row(timed: Timed, seconds: list[float], fastest: float, discarded: int) -> Row:
    median = statistics.median(seconds)
    return Row(
        timed.name,
        1e6 * median,
        1e6 * min(seconds),
        1e6 * max(seconds),
        timed.bytes / median / 1e9,
        timed.bytes / median / fastest,
        timed.flops / median / 1e9,
        len(seconds),
        discarded,
    )


def table(found: dict[str, Any]) -> str:
    """The rows of a result as markdown."""
    head = ("", "µs", "lowest – highest", "GB/s", "of reading", "GFLOP/s", "n")
    lines = [head, ("---",) * len(head)]
    for each in found["rows"]:
        lines.append(
            (
                each["name"],
                f"{each['microseconds']:,.0f}",
                f"{each['low']:,.0f} – {each['high']:,.0f}",
                f"{each['gigabytes_per_second']:.1f}",
                f"{each['share_of_reading']:.0%}",
                f"{each['gigaflops']:.0f}" if each["gigaflops"] else "",
                str(each["samples"]),
            )
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main(threads: int | None, samples: int, results: Path | None) -> None:
    if not Path("/proc/stat").exists():
        sys.exit("oss_kernels.bench: it needs Linux, to tell whether the machine was quiet")
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    found: dict[str, Any] = record.stamp("cpu") | {"paths": machine.paths()}
    print(f"{found['device']['name']}, {found['device']['threads']} threads")
    found["rows"] = [asdict(each) for each in measure(everything(), samples)]
    print(table(found))
    if results:
        print(record.write(found, results, "cpu"))

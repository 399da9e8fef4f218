"""The CPU kernels at gpt-oss's sizes, as a share of the speed at which memory can be read.

Everything is timed by turns, reading too, so that what disturbs one disturbs all. A sample during
which other processes had more than 8 % of a core is thrown away and counted.
"""

import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from oss_kernels.bench import record
from oss_kernels.bench.cpu_work import Timed, reading, work
from oss_kernels.bench.quiet import MOST, Busy, require_linux
from oss_kernels.cpu import machine

SAMPLE = 0.15  # seconds: 15 ticks of the clock that tells whether others were at work


@dataclass(frozen=True)
class Row:
    """Medians over `samples` quiet samples; `discarded` others.

    Attributes:
        low, high: the extremes of microseconds.
        gigabytes_per_second: of weights; activations are not counted.
    """

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


def measure(reading: Timed, work: list[Timed], wanted: int) -> list[Row]:
    """A row for reading and one for each work with a quiet sample; 3 * wanted of each are tried.

    No row at all if reading has no quiet sample.
    """
    everything = [reading, *work]
    seconds: dict[str, list[float]] = {timed.name: [] for timed in everything}
    discarded = dict.fromkeys(seconds, 0)
    positions = dict.fromkeys(seconds, 0)
    for timed in everything:
        for call in timed.calls:  # compile, and touch all memory
            call()
    for _ in range(3 * wanted):
        for timed in everything:
            if len(seconds[timed.name]) == wanted:
                continue
            each, others, positions[timed.name] = sample(timed, positions[timed.name])
            if others > MOST:
                discarded[timed.name] += 1
            else:
                seconds[timed.name].append(each)
    if not seconds[reading.name]:
        return []
    fastest = reading.bytes / statistics.median(seconds[reading.name])
    return [
        row(timed, own, fastest, discarded[timed.name])
        for timed in everything
        if (own := seconds[timed.name])
    ]


def row(timed: Timed, seconds: list[float], fastest: float, discarded: int) -> Row:
    median = statistics.median(seconds)
    return Row(
        name=timed.name,
        microseconds=1e6 * median,
        low=1e6 * min(seconds),
        high=1e6 * max(seconds),
        gigabytes_per_second=timed.bytes / median / 1e9,
        share_of_reading=timed.bytes / median / fastest,
        gigaflops=timed.flops / median / 1e9,
        samples=len(seconds),
        discarded=discarded,
    )


def table(found: dict[str, Any]) -> str:
    """The rows of a result as markdown."""
    head = ("", "µs", "lowest – highest", "GB/s", "of reading", "GFLOP/s", "n", "discarded")
    lines = [head, ("---",) * len(head)]
    for each in (found["reading"], *found["rows"]):
        lines.append(
            (
                each["name"],
                f"{each['microseconds']:,.0f}",
                f"{each['low']:,.0f} – {each['high']:,.0f}",
                f"{each['gigabytes_per_second']:.1f}",
                f"{each['share_of_reading']:.0%}",
                f"{each['gigaflops']:.0f}" if each["gigaflops"] else "",
                str(each["samples"]),
                str(each["discarded"]),
            )
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main(threads: int | None, samples: int, results: Path | None) -> None:
    require_linux("oss_kernels.bench")
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    found: dict[str, Any] = record.stamp("cpu") | {"paths": machine.paths()}
    print(f"{found['device']['name']}, {found['device']['threads']} threads")
    rows = [asdict(each) for each in measure(reading(), work(), samples)]
    if not rows:
        sys.exit("oss_kernels.bench: other processes kept the machine busy; run it when it is idle")
    found["reading"], *found["rows"] = rows
    print(table(found))
    if results:
        print(record.write(found, results, "cpu"))

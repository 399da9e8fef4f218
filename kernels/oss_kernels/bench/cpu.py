"""The CPU kernels at gpt-oss's sizes, compared with the speed of reading memory.

All measurements take turns, including the reading of memory, so a disturbance affects all of them.
A sample during which other processes used more than 8% of a core is discarded and counted.
"""

import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from oss_kernels.bench import record
from oss_kernels.bench.cpu_work import TimedWork, make_reading, make_work
from oss_kernels.bench.quiet import MAX_OTHERS, Busy, require_linux
from oss_kernels.cpu import machine

SAMPLE = 0.15  # seconds: 15 ticks of the clock that counts the time of other processes


@dataclass(frozen=True)
class CpuResult:
    """Medians over `samples` undisturbed samples.

    Attributes:
        low, high: the lowest and highest microseconds of a sample.
        gigabytes_per_second: weights only; activations are not counted.
        share_of_reading: that rate divided by the rate of reading memory.
        discarded: samples left out because other processes were busy.
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


def take_sample(timed: TimedWork, position: int) -> tuple[float, float, int]:
    """Seconds per call, the share of a core that others used, and the position of the next copy."""
    before, began, count = Busy.now(), time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < SAMPLE or count == 0:
        timed.calls[(position + count) % len(timed.calls)]()
        count += 1
    return elapsed / count, Busy.now().others_since(before, elapsed), position + count


def measure_all(reading: TimedWork, work: list[TimedWork], wanted: int) -> list[CpuResult]:
    """One row for reading and one for each item of work that has undisturbed samples.

    Tries 3 * wanted samples of each to get `wanted` undisturbed ones. Returns no rows at all if
    reading has no undisturbed sample.
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
            each, others, positions[timed.name] = take_sample(timed, positions[timed.name])
            if others > MAX_OTHERS:
                discarded[timed.name] += 1
            else:
                seconds[timed.name].append(each)
    if not seconds[reading.name]:
        return []
    fastest = reading.bytes / statistics.median(seconds[reading.name])
    return [
        summarize(timed, own, fastest, discarded[timed.name])
        for timed in everything
        if (own := seconds[timed.name])
    ]


def summarize(timed: TimedWork, seconds: list[float], fastest: float, discarded: int) -> CpuResult:
    median = statistics.median(seconds)
    return CpuResult(
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


def format_table(result: dict[str, Any]) -> str:
    """The rows of a result as a Markdown table."""
    head = ("", "µs", "lowest – highest", "GB/s", "of read speed", "GFLOP/s", "n", "discarded")
    lines = [head, ("---",) * len(head)]
    for each in (result["reading"], *result["rows"]):
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
    result: dict[str, Any] = record.build_stamp("cpu") | {"paths": machine.list_paths()}
    print(f"{result['device']['name']}, {result['device']['threads']} threads")
    rows = [asdict(each) for each in measure_all(make_reading(), make_work(), samples)]
    if not rows:
        sys.exit("oss_kernels.bench: other processes kept the machine busy; run it when it is idle")
    result["reading"], *result["rows"] = rows
    print(format_table(result))
    if results:
        print(record.write(result, results, "cpu"))

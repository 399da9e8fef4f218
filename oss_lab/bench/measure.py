"""Times both sides in turn, takes medians, and measures how busy other programs were."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from oss_kernels.bench.quiet import Busy

from oss_lab.bench.sides import Side
from oss_lab.bench.tasks import SpeedTask


@dataclass(frozen=True)
class TimedRun:
    """One run of one task: wall seconds, and the share of a core that other programs used."""

    seconds: float
    others: float


@dataclass(frozen=True)
class Spread:
    """Median and range of the samples, in the row's unit."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class TaskResult:
    """One task on both sides, in `unit`.

    Attributes:
        ratio: how many times faster we are; their median time divided by ours.
        others: the median share of a core that other programs used.
    """

    task: str
    unit: str
    ours: Spread
    theirs: Spread
    ratio: float
    others: float


def time_once(task: Callable[[], object]) -> TimedRun:
    before, began = Busy.now(), time.perf_counter()
    task()
    seconds = time.perf_counter() - began
    return TimedRun(seconds, Busy.now().others_since(before, seconds))


@torch.inference_mode()
def measure_task(task: SpeedTask, ours: Side, theirs: Side, repeats: int) -> TaskResult:
    samples: list[tuple[TimedRun, TimedRun]] = []
    for _ in range(repeats + 1):
        samples.append((time_once(task.prepare(ours)), time_once(task.prepare(theirs))))
    del samples[0]  # the warm-up
    seconds = [[sample.seconds for sample in side] for side in zip(*samples, strict=True)]
    medians = [statistics.median(each) for each in seconds]
    spreads = [
        Spread(task.to_rate(median), *sorted(task.to_rate(extreme(each)) for extreme in (min, max)))
        for median, each in zip(medians, seconds, strict=True)
    ]
    return TaskResult(
        task.name,
        "ms" if task.tokens is None else "tok/s",
        *spreads,
        ratio=medians[1] / medians[0],
        others=statistics.median(sample.others for pair in samples for sample in pair),
    )

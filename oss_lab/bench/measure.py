"""Medians of both sides by turns, and whether other programs were at work meanwhile."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from oss_kernels.bench.quiet import Busy

from oss_lab.bench.sides import Side
from oss_lab.bench.tasks import Task


@dataclass(frozen=True)
class Sample:
    """One run of one task: wall seconds, and the share of a core that other programs had."""

    seconds: float
    others: float


@dataclass(frozen=True)
class Spread:
    """Of the samples, in the row's unit."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One task, both sides, in `unit`.

    Attributes:
        ratio: how many times faster we are, by the medians.
        others: the median share of a core that other programs had.
    """

    task: str
    unit: str
    ours: Spread
    theirs: Spread
    ratio: float
    others: float


def timed(task: Callable[[], object]) -> Sample:
    before, began = Busy.now(), time.perf_counter()
    task()
    seconds = time.perf_counter() - began
    return Sample(seconds, Busy.now().others_since(before, seconds))


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
        others=statistics.median(sample.others for pair in samples for sample in pair),
    )

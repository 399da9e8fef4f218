"""Times kernels on a CUDA device, launched from a CUDA graph and reading their data from memory.

A launch from Python takes longer than most of these kernels run; a launch from a graph does not.
The launches cycle through copies of the operands that are together larger than the L2 cache. So
each launch reads its operands from memory, as it would in a model.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

REPLAYS = 20
LEAST_MICROSECONDS = 2000.0  # per replay: events have a resolution of about half a microsecond


@dataclass(frozen=True)
class Time:
    """Microseconds of one call: the median and the 10th and 90th percentiles of n replays."""

    median: float
    p10: float
    p90: float
    n: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Time":
        tenths = statistics.quantiles(samples, n=10, method="inclusive")
        return cls(statistics.median(samples), tenths[0], tenths[8], len(samples))


def time_calls(calls: Sequence[Callable[[], object]], replays: int = REPLAYS) -> Time:
    """The time of one call. Each of `calls` works on a separate copy of the operands."""
    for call in calls:
        call()  # compiles
    torch.cuda.synchronize()
    once = time_each(capture_graph(calls, 1).replay, 2)[-1]
    rounds = max(1, math.ceil(LEAST_MICROSECONDS / once))
    samples = time_each(capture_graph(calls, rounds).replay, replays + 2)[2:]
    return Time.of([sample / (rounds * len(calls)) for sample in samples])


def time_steps(step: Callable[[], object], count: int = REPLAYS) -> Time:
    """The time of a whole step, launched as it launches itself: from Python or from a graph.

    A step of 20b reads gigabytes, so nothing of the step before is left in the cache.
    """
    return Time.of(time_each(step, count + 2)[2:])


def capture_graph(calls: Sequence[Callable[[], object]], rounds: int) -> torch.cuda.CUDAGraph:
    """A graph that makes all calls in order, `rounds` times."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(rounds):
            for call in calls:
                call()
    return graph


def time_each(step: Callable[[], object], count: int) -> list[float]:
    """Call `step` `count` times. Returns the microseconds of each call on the device."""
    samples = list[float]()
    for _ in range(count):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        step()
        end.record()
        torch.cuda.synchronize()
        samples.append(1000 * begin.elapsed_time(end))
    return samples

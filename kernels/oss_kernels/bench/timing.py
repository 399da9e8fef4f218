"""Microseconds of kernels on a CUDA device, launched from a CUDA graph and reading from memory.

A launch from Python takes longer than most of these kernels run; a graph's does not. Copies of the
operands follow each other, together larger than the second-level cache, so that each launch finds
its own in memory as it would in a model.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

REPLAYS = 20
LEAST_MICROSECONDS = 2000.0  # of one replay: events tell about half a microsecond apart


@dataclass(frozen=True)
class Time:
    """Microseconds of one call: the median of n replays, and the span of four fifths of them."""

    median: float
    p10: float
    p90: float
    n: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Time":
        tenths = statistics.quantiles(samples, n=10, method="inclusive")
        return cls(statistics.median(samples), tenths[0], tenths[8], len(samples))


def time_calls(calls: Sequence[Callable[[], object]], replays: int = REPLAYS) -> Time:
    """Of one call, where each of them works on its own copy of the operands."""
    for call in calls:
        call()  # compiles
    torch.cuda.synchronize()
    once = replayed(captured(calls, 1), 2)[-1]
    rounds = max(1, math.ceil(LEAST_MICROSECONDS / once))
    samples = replayed(captured(calls, rounds), replays + 2)[2:]
    return Time.of([sample / (rounds * len(calls)) for sample in samples])


def captured(calls: Sequence[Callable[[], object]], rounds: int) -> torch.cuda.CUDAGraph:
    """All calls one after the other, so many times."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(rounds):
            for call in calls:
                call()
    return graph


def replayed(graph: torch.cuda.CUDAGraph, count: int) -> list[float]:
    """Microseconds of each replay."""
    samples = list[float]()
    for _ in range(count):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        samples.append(1000 * begin.elapsed_time(end))
    return samples

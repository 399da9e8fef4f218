"""Times the sides in turn, takes medians, and measures how busy other programs were."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from oss_kernels.bench.quiet import Busy

from oss_lab.progress import track_progress

OURS = "oss_lab"


@dataclass(frozen=True)
class TimedRun:
    """One run of one task: its seconds, and the share of a core that other programs used."""

    seconds: float
    others: float


@dataclass(frozen=True)
class Spread:
    """Median and range of the samples, in the row's unit."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Spread":
        return cls(statistics.median(samples), min(samples), max(samples))


@dataclass(frozen=True)
class Result:
    """One task on one side.

    Attributes:
        by: the name of the side.
        unit: "tokens/s", "ms", "s", "MiB" or "%"; of tokens/s, more is better, of others less.
        n: number of samples.
        others: the median share of a core that other programs used.
        bytes: what one decode step must read, by the formula; None for other tasks.
    """

    task: str
    by: str
    unit: str
    spread: Spread
    n: int
    others: float
    bytes: int | None = None


def take_turns(
    timed: Mapping[str, Callable[[], float]], rounds: int, what: str
) -> dict[str, list[TimedRun]]:
    """Run every function once per round, in a rotating order, after a round of warm-up.

    Args:
        timed: each does its work and returns the seconds that count.
        what: the label of the progress bar.
    """
    runs: dict[str, list[TimedRun]] = {name: [] for name in timed}
    names = list(timed)
    for turn in track_progress(range(rounds + 1), what, "round"):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            before, began = Busy.now(), time.perf_counter()
            seconds = timed[name]()
            elapsed = time.perf_counter() - began
            if turn:
                runs[name].append(TimedRun(seconds, Busy.now().others_since(before, elapsed)))
    return runs


def summarize(
    task: str,
    by: str,
    runs: Sequence[TimedRun],
    *,
    tokens: int | None = None,
    bytes: int | None = None,
) -> Result:
    """The result of some runs: tokens per second, or milliseconds if `tokens` is None."""
    samples = [1000 * run.seconds if tokens is None else tokens / run.seconds for run in runs]
    unit = "ms" if tokens is None else "tokens/s"
    others = statistics.median(run.others for run in runs)
    return Result(task, by, unit, Spread.of(samples), len(runs), others, bytes)

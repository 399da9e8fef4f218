"""What recording adds to a forward's time: every selection against no taps, by turns.

The turns are as short as they can be, a token where tokens come one by one, so that other programs
disturb all alike; who begins changes from turn to turn. A round with a recording is paired with the
same round without. No taps, measured a second time, say how large a difference is none.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from oss_kernels.bench.quiet import Busy
from torch import Tensor

from oss_lab.analysis.statistics.bootstrap import resampled_interval
from oss_lab.bench.measure import Sample, Spread
from oss_lab.engine.cache import KVCache
from oss_lab.engine.generate import prefill, read
from oss_lab.hooks.points import ALWAYS, POINTS, needs_logits
from oss_lab.hooks.recording import Recording
from oss_lab.hooks.selection import Selection
from oss_lab.model import Transformer, untapped

PROMPT, NEW, PREFILL = 100, 25, 256
LONGEST = max(PROMPT + NEW, PREFILL)
SEED = 0  # of the intervals
Step = Callable[[], object]
NOTHING = "nothing"


RECORDED: Mapping[str, tuple[str, ...]] = {
    NOTHING: (),
    "nothing again": (),
    "tier 1": ALWAYS,
    "tier 1 without logits": tuple(name for name in ALWAYS if not needs_logits([name])),
    "residuals": ("resid.pre", "resid.mid", "resid.post"),
    "tier 2": tuple(name for name, point in POINTS.items() if point.tier == 2),
}


@dataclass(frozen=True)
class Cost:
    """One selection in one task.

    Attributes:
        kernels: which kernels computed it.
        ms: a token, median and range.
        over: how much longer than with nothing recorded, as a share of that: the median of the
            rounds' ratios less one.
        interval: of `over`, bootstrapped over the rounds at 95 %.
        rounds: how many there were.
        bytes: that are kept of a token.
        others: the median share of a core that other programs had.
    """

    task: str
    recorded: str
    kernels: str
    ms: Spread
    over: float
    interval: tuple[float, float]
    rounds: int
    bytes: float
    others: float


@dataclass(frozen=True)
class Task:
    """`prepare(model, recording)` gives the steps that are timed: the work of `tokens` tokens."""

    name: str
    tokens: int
    prepare: Callable[[Transformer, Recording | None], Sequence[Step]]


def tasks(ids: Tensor) -> Iterator[Task]:
    """Token by token behind a prompt, and a prompt; both to the recording's finished tensors."""
    prompt, new = ids[:, :PROMPT], ids[:, PROMPT : PROMPT + NEW]

    def decode(model: Transformer, recording: Recording | None) -> Sequence[Step]:
        cache = KVCache(model.config)
        prefill(model, prompt, cache)

        def feed(token: Tensor) -> None:
            model(token[:, None], cache, last=1, taps=recording or untapped)

        return [*(partial(feed, token) for token in new.unbind(1)), partial(finish, recording)]

    def read_prompt(model: Transformer, recording: Recording | None) -> Sequence[Step]:
        row = ids[0, :PREFILL].tolist()
        everywhere = recording is not None and needs_logits(recording.selection.points)
        first_kept = 0 if everywhere else PREFILL - 1

        def run() -> None:
            for _ in read(model, row, first_kept, recording or untapped):
                pass

        return [run, partial(finish, recording)]

    yield Task(f"decode {NEW} after {PROMPT}", NEW, decode)
    yield Task(f"prefill {PREFILL}", PREFILL, read_prompt)


def finish(recording: Recording | None) -> None:
    if recording is not None:
        recording.tensors()


@torch.inference_mode()
def costs(
    model: Transformer,
    task: Task,
    rounds: int,
    recorded: Mapping[str, tuple[str, ...]] = RECORDED,
) -> list[Cost]:
    """Of each selection; `recorded` has one named `NOTHING`."""
    samples: dict[str, list[Sample]] = {name: [] for name in recorded}
    kept: dict[str, float] = {}
    kernels: dict[str, str] = {}
    for turn in range(rounds + 1):
        recordings = {
            name: Recording(model, Selection(points)) if points else None
            for name, points in recorded.items()
        }
        steps = {name: task.prepare(model, each) for name, each in recordings.items()}
        for name, sample in taken_in_turn(steps, turn).items():
            samples[name].append(sample)
        kept = {name: size(each) / task.tokens for name, each in recordings.items()}
        kernels = {n: model.computed_by(each or untapped) for n, each in recordings.items()}
    for each in samples.values():
        del each[0]  # it warmed caches up
    return [cost(task, name, kernels[name], samples, kept[name]) for name in recorded]


def taken_in_turn(steps: Mapping[str, Sequence[Step]], turn: int) -> dict[str, Sample]:
    """Everyone's first step, everyone's second, and so on; the seconds that each one's took."""
    names, seconds = list(steps), dict.fromkeys(steps, 0.0)
    before, began = Busy.now(), time.perf_counter()
    for n, together in enumerate(zip(*steps.values(), strict=True), start=turn):
        step = dict(zip(names, together, strict=True))
        first = n % len(names)
        for name in names[first:] + names[:first]:
            at = time.perf_counter()
            step[name]()
            seconds[name] += time.perf_counter() - at
    others = Busy.now().others_since(before, time.perf_counter() - began)
    return {name: Sample(each, others) for name, each in seconds.items()}


def size(recording: Recording | None) -> int:
    """Bytes that it keeps."""
    return sum(x.nbytes for x in recording.tensors().values()) if recording else 0


def cost(
    task: Task, name: str, kernels: str, samples: Mapping[str, Sequence[Sample]], kept: float
) -> Cost:
    seconds = [sample.seconds for sample in samples[name]]
    without = [sample.seconds for sample in samples[NOTHING]]
    ratios = [a / b for a, b in zip(seconds, without, strict=True)]
    ms = [1000 * each / task.tokens for each in seconds]
    low, high = resampled_interval(np.median, ratios, seed=SEED)
    return Cost(
        task.name,
        name,
        kernels,
        Spread(statistics.median(ms), min(ms), max(ms)),
        statistics.median(ratios) - 1,
        (low - 1, high - 1),
        len(ratios),
        kept,
        statistics.median(sample.others for sample in samples[name]),
    )

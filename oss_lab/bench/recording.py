"""What recording adds to a forward's time: every selection against none, by turns.

The turns are as short as they can be, a token where tokens come one by one, so that other programs
disturb all alike; who begins changes from turn to turn. A round with a recording is paired with the
same round without. Nothing, measured a second time, say how large a difference is none.
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
from oss_lab.engine.choice import Engines
from oss_lab.engine.engine import Engine
from oss_lab.engine.read import forward, read
from oss_lab.engine.request import Request
from oss_lab.engine.row import Row
from oss_lab.hooks.points import ALWAYS, POINTS, lines_of, needs_logits
from oss_lab.hooks.recording import Recording
from oss_lab.hooks.selection import Selection

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
    """`prepare(row, engine)` gives the steps that are timed: the work of `tokens` tokens."""

    name: str
    tokens: int
    prepare: Callable[[Row, Engine], Sequence[Step]]


def tasks(ids: Tensor) -> Iterator[Task]:
    """Token by token behind a prompt, and a prompt; both to the recording's finished tensors."""
    prompt, new = ids[:, :PROMPT], ids[:, PROMPT : PROMPT + NEW]

    def decode(row: Row, engine: Engine) -> Sequence[Step]:
        cache = KVCache(engine.config)
        engine.forward(prompt, cache, last=0)  # nothing of the prompt is recorded

        def feed(token: Tensor) -> None:
            forward(engine, token[:, None], cache, [row], 1, is_prefill=False)

        return [*(partial(feed, token) for token in new.unbind(1)), partial(finish, row.recording)]

    def read_prompt(row: Row, engine: Engine) -> Sequence[Step]:
        def run() -> None:
            for _ in read(engine, [row], ids[:, :PREFILL], KVCache(engine.config), PREFILL - 1):
                pass

        return [run, partial(finish, row.recording)]

    yield Task(f"decode {NEW} after {PROMPT}", NEW, decode)
    yield Task(f"prefill {PREFILL}", PREFILL, read_prompt)


def finish(recording: Recording | None) -> None:
    if recording is not None:
        recording.tensors()


@torch.inference_mode()
def costs(
    engines: Engines,
    task: Task,
    rounds: int,
    recorded: Mapping[str, tuple[str, ...]] = RECORDED,
) -> list[Cost]:
    """Of each selection; `recorded` has one named `NOTHING`."""
    samples: dict[str, list[Sample]] = {name: [] for name in recorded}
    chosen = {name: engines.choose(lines_of(points)).engine for name, points in recorded.items()}
    kept: dict[str, float] = {}
    for turn in range(rounds + 1):
        rows = {name: Row(request_of(points), 0, chosen[name]) for name, points in recorded.items()}
        steps = {name: task.prepare(row, chosen[name]) for name, row in rows.items()}
        for name, sample in taken_in_turn(steps, turn).items():
            samples[name].append(sample)
        kept = {name: size(row.recording) / task.tokens for name, row in rows.items()}
    for each in samples.values():
        del each[0]  # it warmed caches up
    return [cost(task, name, chosen[name].name, samples, kept[name]) for name in recorded]


def request_of(points: tuple[str, ...]) -> Request:
    """A request that records these points."""
    return Request((0,), selection=Selection(points) if points else None)


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

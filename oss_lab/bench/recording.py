"""How much time recording adds to a forward pass: every selection compared with none.

The selections take turns. Turns are as short as possible (one token while decoding), so other
programs disturb all selections equally. The order rotates from turn to turn. A round with a
recording is compared with the same round without one. Recording nothing is measured twice: the
difference between the two shows the noise.
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

from oss_lab.analysis.statistics.bootstrap import bootstrap_interval
from oss_lab.bench.measure import Spread, TimedRun
from oss_lab.engine.cache import KVCache
from oss_lab.engine.choice import Engines
from oss_lab.engine.engine import Engine
from oss_lab.engine.read import forward, prefill
from oss_lab.engine.request import Request
from oss_lab.engine.row import BatchRow
from oss_lab.hooks.points import ALWAYS, POINTS, find_forward_points, needs_logits
from oss_lab.hooks.recording import Recording
from oss_lab.hooks.selection import Selection

PROMPT, NEW, PREFILL = 100, 25, 256
LONGEST = max(PROMPT + NEW, PREFILL)
SEED = 0  # for the bootstrap intervals
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
class RecordingCost:
    """One selection in one task.

    Attributes:
        kernels: which kernels computed it.
        ms: milliseconds per token, median and range.
        over: extra time as a share of the time with nothing recorded: the median over rounds of
            the ratio, minus one.
        interval: the 95% bootstrap interval of `over`, over rounds.
        rounds: the number of rounds.
        bytes: recorded bytes per token.
        others: the median share of a core that other programs used.
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
class RecordingTask:
    """`prepare(row, engine)` returns the steps to time: the work of `tokens` tokens."""

    name: str
    tokens: int
    prepare: Callable[[BatchRow, Engine], Sequence[Step]]


def make_tasks(ids: Tensor) -> Iterator[RecordingTask]:
    """Decoding after a prompt, and prefill. Both include finishing the recording's tensors."""
    prompt, new = ids[:, :PROMPT], ids[:, PROMPT : PROMPT + NEW]

    def decode(row: BatchRow, engine: Engine) -> Sequence[Step]:
        cache = KVCache(engine.config)
        engine.forward(prompt, cache, last=0)  # nothing of the prompt is recorded

        def feed(token: Tensor) -> None:
            forward(engine, token[:, None], cache, [row], 1, is_prefill=False)

        return [*(partial(feed, token) for token in new.unbind(1)), partial(finish, row.recording)]

    def read_prompt(row: BatchRow, engine: Engine) -> Sequence[Step]:
        def run() -> None:
            for _ in prefill(engine, [row], ids[:, :PREFILL], KVCache(engine.config), PREFILL - 1):
                pass

        return [run, partial(finish, row.recording)]

    yield RecordingTask(f"decode {NEW} after {PROMPT}", NEW, decode)
    yield RecordingTask(f"prefill {PREFILL}", PREFILL, read_prompt)


def finish(recording: Recording | None) -> None:
    if recording is not None:
        recording.tensors()


@torch.inference_mode()
def measure_costs(
    engines: Engines,
    task: RecordingTask,
    rounds: int,
    recorded: Mapping[str, tuple[str, ...]] = RECORDED,
) -> list[RecordingCost]:
    """The cost of each selection. `recorded` must contain `NOTHING`."""
    samples: dict[str, list[TimedRun]] = {name: [] for name in recorded}
    chosen = {
        name: engines.choose(find_forward_points(points)).engine
        for name, points in recorded.items()
    }
    kept: dict[str, float] = {}
    for turn in range(rounds + 1):
        rows = {
            name: BatchRow(make_request(points), 0, chosen[name])
            for name, points in recorded.items()
        }
        steps = {name: task.prepare(row, chosen[name]) for name, row in rows.items()}
        for name, sample in time_in_turn(steps, turn).items():
            samples[name].append(sample)
        kept = {name: count_bytes(row.recording) / task.tokens for name, row in rows.items()}
    for each in samples.values():
        del each[0]  # the warm-up
    return [summarize(task, name, chosen[name].name, samples, kept[name]) for name in recorded]


def make_request(points: tuple[str, ...]) -> Request:
    """A request that records these points."""
    return Request((0,), selection=Selection(points) if points else None)


def time_in_turn(steps: Mapping[str, Sequence[Step]], turn: int) -> dict[str, TimedRun]:
    """Run the first step of each, then the second of each, and so on. The total seconds of each."""
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
    return {name: TimedRun(each, others) for name, each in seconds.items()}


def count_bytes(recording: Recording | None) -> int:
    """The bytes of a recording's tensors."""
    return sum(x.nbytes for x in recording.tensors().values()) if recording else 0


def summarize(
    task: RecordingTask,
    name: str,
    kernels: str,
    samples: Mapping[str, Sequence[TimedRun]],
    kept: float,
) -> RecordingCost:
    seconds = [sample.seconds for sample in samples[name]]
    without = [sample.seconds for sample in samples[NOTHING]]
    ratios = [a / b for a, b in zip(seconds, without, strict=True)]
    ms = [1000 * each / task.tokens for each in seconds]
    low, high = bootstrap_interval(np.median, ratios, seed=SEED)
    return RecordingCost(
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

"""Reading the tokens of a run again: to fill a cache, to record, and to measure the time."""

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from oss_lab.analysis.branch_trace import read_chunk, split_chunks
from oss_lab.engine.cache import KVCache
from oss_lab.engine.engine import Engine
from oss_lab.hooks.cost import BUDGET, check_budget
from oss_lab.hooks.interventions.changes import Effect
from oss_lab.hooks.points import find_forward_points, needs_logits
from oss_lab.hooks.recording import Key, Recording
from oss_lab.hooks.selection import Selection

if TYPE_CHECKING:
    from oss_widgets.sources.run import Run

TRIES = 3  # of `time_token`


def extend_cache(
    run: "Run",
    cache: KVCache,
    end: int,
    *,
    engine: Engine | None = None,
    last: int | None = 0,
    recording: Recording | None = None,
) -> Iterator[None]:
    """Read the tokens before `end` that a cache lacks, under the interventions of each span.

    Yields between chunks, so it can be canceled; the cache then has the chunks that were read.

    Args:
        engine: by default the run's.
        last: at how many last tokens of a chunk logits are computed; None for all.
    """
    ends = [begin for begin, _ in run.spans[1:]] + [len(run.ids)]
    for (begin, made), until in zip(run.spans, ends, strict=True):
        span = run.ids[max(begin, cache.length) : min(until, end)]
        for piece in split_chunks(span) if span else ():
            effects = tuple(map(Effect, made))
            read_chunk(run.lab, piece, cache, engine or run.engine, last, effects, recording)
            yield


def fork_cache(run: "Run", at: int) -> KVCache:
    """A cache with the tokens before `at`, on the run's engine.

    The run keeps what is read for it, so the next fork of a run that was released is fast again.
    """
    if run.stop is not None:
        for _ in extend_cache(run, run.cache, min(at, len(run.ids) - 1)):
            pass
    cache = run.cache.fork(at=min(at, run.cache.length))
    for _ in extend_cache(run, cache, at):
        pass
    return cache


def record(
    run: "Run", points: Sequence[str], layers: Sequence[int] | None, begin: int, end: int
) -> dict[Key, Tensor]:
    """Points at positions begin ... end - 1, by point and layer: [seq ...], on the CPU.

    Reads these tokens again, each under the interventions that applied to it.

    Raises:
        LabError: a point or layer does not exist, or the result is too large.
    """
    selection = Selection.of(points, layers, None, range(begin, end))
    selection.check(run.lab.config, len(run.ids))
    check_budget(run.lab.model, selection, [end], BUDGET)
    reads = {name for _, made in run.spans for each in made for name in each.READS}
    writes = {each.writes for _, made in run.spans for each in made}
    engine = run.lab.engines.choose(find_forward_points(points) | reads, writes).engine
    is_continued = begin > 0 and engine is run.engine
    cache = fork_cache(run, begin) if is_continued else KVCache(run.lab.config)
    recording = Recording(run.lab.model, selection)
    last = None if needs_logits(points) else 0
    for _ in extend_cache(run, cache, end, engine=engine, last=last, recording=recording):
        pass
    return recording.tensors()


def time_token(run: "Run") -> float:
    """Seconds to read one token: the fastest of a few tries."""
    times = []
    for _ in range(TRIES):
        began = time.perf_counter()
        read_chunk(run.lab, run.ids[:1], KVCache(run.lab.config), run.engine, 1, ())
        times.append(time.perf_counter() - began)
    return min(times)

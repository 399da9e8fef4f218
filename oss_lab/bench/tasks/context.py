"""One decode step against the number of tokens before it, beside the bytes that it must read.

The cache is filled with random keys and values, since reading so many tokens would take hours.
"""

from collections.abc import Iterator

import torch

from oss_lab.bench.command import SEED
from oss_lab.bench.formula import count_step_bytes
from oss_lab.bench.measure import OURS, Result, summarize, take_turns
from oss_lab.bench.setting import Setting
from oss_lab.bench.sides import Timed, time_inference
from oss_lab.checkpoint.load import DTYPES
from oss_lab.engine.cache import KVCache
from oss_lab.engine.engine import Engine
from oss_lab.engine.layer_cache import GROWTH

CONTEXTS = (0, 1024, 4096, 16_384, 65_536, 131_071)
STEPS = 4  # per sample


def measure(setting: Setting) -> Iterator[Result]:
    config, engine = setting.checkpoint.config, setting.engines.main
    contexts = [each for each in CONTEXTS if each < config.max_context_length]
    timed = {
        f"{each}": prepare_steps(engine, fill_cache(engine, DTYPES[setting.dtype], each))
        for each in contexts
    }
    for context, runs in take_turns(timed, setting.repeats, "step against context").items():
        read = count_step_bytes(config, setting.dtype, setting.kernels, int(context))
        yield summarize(f"step after {int(context):,}", OURS, runs, bytes=read)


def fill_cache(engine: Engine, dtype: torch.dtype, context: int) -> KVCache:
    """A cache of `context` tokens with random keys and values; sliding layers keep a window."""
    config, generator = engine.config, torch.Generator().manual_seed(SEED)
    cache = KVCache(config, history="window")
    cache.length = context
    for layer in cache.layers:
        kept = context if layer.reach is None else min(context, layer.reach)
        shape = (2, 1, config.num_key_value_heads, kept + GROWTH, config.head_dim)
        layer.first = context - kept
        layer.tail = torch.randn(shape, dtype=dtype, generator=generator)
    return cache


def prepare_steps(engine: Engine, cache: KVCache) -> Timed:
    """The seconds of one step, a mean over `STEPS`, each at the same length."""
    length, token = cache.length, torch.zeros(1, 1, dtype=torch.long)

    def run() -> None:
        for _ in range(STEPS):
            engine.forward(token, cache, last=1)
            cache.truncate(length)

    return lambda: time_inference(run) / STEPS

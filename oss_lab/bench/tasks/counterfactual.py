"""The map of what happens without each expert of one token: one batch with a row per change."""

from collections.abc import Iterator

import torch

from oss_lab.analysis.counterfactual import OneChangePerRow
from oss_lab.bench.measure import OURS, Result, summarize, take_turns
from oss_lab.bench.setting import Setting
from oss_lab.bench.sides import time_inference
from oss_lab.engine.cache import KVCache
from oss_lab.hooks.points import find_forward_points

PROMPT = 100


def measure(setting: Setting) -> Iterator[Result]:
    config, points = setting.checkpoint.config, OneChangePerRow.POINTS
    engine = setting.engines.choose(find_forward_points(points), points).engine
    ids = setting.make_ids(PROMPT + 1)
    cache = KVCache(config)
    with torch.inference_mode():
        engine.forward(ids[:, :PROMPT], cache, last=0)

    def run() -> None:
        changes = OneChangePerRow(config.num_hidden_layers, config.experts_per_token)
        rows = cache.fork(batch=changes.rows)
        engine.forward(ids[:, PROMPT:].expand(changes.rows, -1), rows, last=1, hooks=changes)

    name = f"counterfactual map ({engine.name})"
    runs = take_turns({OURS: lambda: time_inference(run)}, setting.repeats, name)
    yield summarize(name, OURS, runs[OURS])

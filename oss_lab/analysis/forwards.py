"""Forwards for analyses: over a cache, on one engine, under the interventions in force."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_lab.engine.cache import KVCache
from oss_lab.engine.choice import Chosen
from oss_lab.engine.engine import Engine
from oss_lab.engine.read import PREFILL_CHUNK
from oss_lab.engine.request import Request
from oss_lab.hooks.forward import hooks_of
from oss_lab.hooks.interventions.in_force import in_force
from oss_lab.hooks.points import lines_of
from oss_lab.hooks.step import Step
from oss_lab.model import Hooks, no_hooks
from oss_lab.model.past import Past

if TYPE_CHECKING:
    from oss_lab.lab import Lab


def choose_engine(lab: "Lab", reads: Collection[str] = (), writes: Collection[str] = ()) -> Chosen:
    """The engine for these points (read) and lines (changed), and the interventions in force.

    Raises:
        LabError: kernels were named that cannot serve them.
    """
    request = Request((), effects=in_force(lab))
    return lab.engines.choose(lines_of(reads) | request.reads, {*writes, *request.writes})


def build_cache(lab: "Lab", tokens: Sequence[int], engine: Engine) -> KVCache:
    """A KV cache of these tokens; may be empty."""
    cache = KVCache(lab.config)
    row = torch.tensor([list(tokens)], dtype=torch.long, device=lab.model.device)
    for chunk in row.split(PREFILL_CHUNK, dim=1) if len(tokens) else ():
        with torch.inference_mode():
            run_forward(lab, chunk, cache, last=0, engine=engine)
    return cache


def run_forward(
    lab: "Lab",
    tokens: Int[Tensor, "row seq"],
    past: Past | None = None,
    *,
    last: int | None = None,
    also: Hooks = no_hooks,
    engine: Engine | None = None,
) -> Float[Tensor, "row kept vocab"]:
    """Logits of one forward under the interventions in force, then the hooks of `also`.

    Args:
        engine: by default the one that serves the interventions.
    """
    rows, seq = tokens.shape
    past = KVCache(lab.config, rows) if past is None else past
    engine = choose_engine(lab).engine if engine is None else engine
    positions = past.positions(seq, tokens.device).expand(rows, -1)
    step = Step(tokens, positions, True, tuple(range(rows)))
    with hooks_of(step, [in_force(lab)] * rows, [None] * rows, also) as hooks:
        return engine.forward(tokens, past, last=last, hooks=hooks)

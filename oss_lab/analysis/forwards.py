"""Forward passes for analyses: over a cache, on one engine, under the active interventions."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_lab.engine.cache import KVCache
from oss_lab.engine.choice import EngineChoice
from oss_lab.engine.engine import Engine
from oss_lab.engine.read import PREFILL_CHUNK
from oss_lab.engine.request import Request
from oss_lab.hooks.forward import open_hooks
from oss_lab.hooks.interventions.active import find_active_effects
from oss_lab.hooks.points import find_forward_points
from oss_lab.hooks.step import ForwardPass
from oss_lab.model import Hooks, no_hooks
from oss_lab.model.past import Past

if TYPE_CHECKING:
    from oss_lab.lab import Lab


def choose_engine(
    lab: "Lab", reads: Collection[str] = (), writes: Collection[str] = ()
) -> EngineChoice:
    """The engine that can read and write these points under the active interventions.

    Raises:
        LabError: the kernels that the user named cannot serve them.
    """
    request = Request((), effects=find_active_effects(lab))
    return lab.engines.choose(
        find_forward_points(reads) | request.reads, {*writes, *request.writes}
    )


def build_cache(lab: "Lab", tokens: Sequence[int], engine: Engine) -> KVCache:
    """A KV cache of these tokens; empty if there are none."""
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
    """Logits of one forward pass. The active interventions run first, then the hooks of `also`.

    Args:
        engine: by default one that serves the active interventions.
    """
    rows, seq = tokens.shape
    past = KVCache(lab.config, rows) if past is None else past
    engine = choose_engine(lab).engine if engine is None else engine
    positions = past.positions(seq, tokens.device).expand(rows, -1)
    step = ForwardPass(tokens, positions, True, tuple(range(rows)))
    with open_hooks(step, [find_active_effects(lab)] * rows, [None] * rows, also) as hooks:
        return engine.forward(tokens, past, last=last, hooks=hooks)

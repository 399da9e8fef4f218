"""The engine of a split model whose experts are computed by a kernel, from their packed weights.

The reference model would dequantize these weights. Everything else is the reference model's, so
only the inside of an expert cannot be recorded.
"""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from oss_kernels.backends import Backend
from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.engine.kernels import collect_expert_weights
from oss_lab.engine.parallel.experts import SplitExperts
from oss_lab.engine.parallel.model import SplitTransformer
from oss_lab.engine.parallel.whole_hooks import BY_SLOT
from oss_lab.hooks.points import POINTS
from oss_lab.model import Hooks, Transformer, no_hooks
from oss_lab.model.hook import LayerHook
from oss_lab.model.past import Past


class SplitKernelEngine:
    """Runs `model`, whose experts are packed as MXFP4, with the expert kernel of a backend."""

    def __init__(self, model: SplitTransformer, kernels: Backend) -> None:
        self.model: Transformer = model
        self.name: str = kernels.name
        self.parts: tuple[str, ...] = ()
        make_mixture = partial(FusedExperts, kernels.expert_mlp)
        with torch.device("meta"):
            fused = SplitTransformer(model.config, model.processes, make_mixture=make_mixture)
        fused.load_state_dict(model.state_dict(), assign=True)  # shares the weights
        self._fused = fused.eval().requires_grad_(False)

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return self.model.device

    def explain_refusal(self, reads: Collection[str], writes: Collection[str]) -> str | None:
        """Why it cannot record or change one of these points; None if it can."""
        inside = sorted(BY_SLOT & {*reads, *writes})
        return f"{inside[0]}: {POINTS[inside[0]].not_in_kernels_reason}" if inside else None

    def forward(
        self,
        tokens: Int[Tensor, "batch seq"],
        past: Past | None = None,
        *,
        last: int | None = None,
        hooks: Hooks = no_hooks,
    ) -> Float[Tensor, "batch last vocab"]:
        """As `Transformer.forward`, without gradients."""
        return self._fused(tokens, past, last=last, hooks=hooks)


class FusedExperts(SplitExperts):
    """`SplitExperts` in one call of `expert_mlp`, without points inside an expert."""

    def __init__(self, expert_mlp: Callable[..., Tensor], *args: Any) -> None:
        super().__init__(*args)
        self.expert_mlp = expert_mlp

    def _mix(
        self,
        normed: Float[Tensor, "batch seq hidden"],
        ids: Int[Tensor, "batch seq slot"],
        weights: Float[Tensor, "batch seq slot"],
        is_own: Bool[Tensor, "batch seq slot"],
        hook: LayerHook,
    ) -> Float[Tensor, "batch seq hidden"]:
        """Each of this process's slots is a row with a single expert for the kernel."""
        out = torch.zeros_like(normed, dtype=torch.float32).flatten(0, 1)
        slots = is_own.flatten().nonzero()[:, 0]
        if len(slots):
            tokens = slots // self.slots
            rows = self.expert_mlp(
                normed.flatten(0, 1).index_select(0, tokens),
                ids.flatten()[slots, None] - self.own.start,
                weights.flatten()[slots, None],
                collect_expert_weights(self),
                alpha=self.alpha,
                limit=self.limit,
            )
            out.index_add_(0, tokens, rows.float())
        return out.view(normed.shape)

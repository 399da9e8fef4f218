"""The reference engine: runs the reference model, where every point can be recorded."""

from collections.abc import Collection

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_lab.model import Hooks, Transformer, no_hooks
from oss_lab.model.past import Past


class ReferenceEngine:
    """Runs `model` itself."""

    name = "reference"

    def __init__(self, model: Transformer, parts: tuple[str, ...] = ()) -> None:
        self.model, self.config, self.parts = model, model.config, parts

    @property
    def device(self) -> torch.device:
        return self.model.device

    def explain_refusal(self, reads: Collection[str], writes: Collection[str]) -> None:
        """None: it serves every request."""

    def forward(
        self,
        tokens: Int[Tensor, "batch seq"],
        past: Past | None = None,
        *,
        last: int | None = None,
        hooks: Hooks = no_hooks,
    ) -> Float[Tensor, "batch last vocab"]:
        """As `Transformer.forward`."""
        return self.model(tokens, past, last=last, hooks=hooks)

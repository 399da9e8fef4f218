"""The reference engine: the readable model computes every forward, and can show all of it."""

from collections.abc import Collection

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_lab.model import Hooks, Transformer, no_hooks
from oss_lab.model.past import Past


class ReferenceEngine:
    """Runs `model` as it is written."""

    name = "reference"

    def __init__(self, model: Transformer) -> None:
        self.model, self.config = model, model.config

    @property
    def device(self) -> torch.device:
        return self.model.device

    def refusal(self, reads: Collection[str], writes: Collection[str]) -> None:
        """None: it can show and change every point."""

    def forward(
        self,
        tokens: Int[Tensor, "batch seq"],
        past: Past | None = None,
        *,
        last: int | None = None,
        hooks: Hooks = no_hooks,
    ) -> Float[Tensor, "batch kept vocab"]:
        """As `Transformer.forward`."""
        return self.model(tokens, past, last=last, hooks=hooks)

"""The interface of an engine: a name, the weights, a forward pass, and the requests it refuses."""

from collections.abc import Collection
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.model import Hooks, Transformer, no_hooks
from oss_lab.model.past import Past


class Engine(Protocol):
    """Computes the forward pass of one model.

    Attributes:
        parts: the names of the parts of the model that a learner replaced.
    """

    model: Transformer
    name: str
    parts: tuple[str, ...]

    @property
    def config(self) -> ModelConfig: ...

    @property
    def device(self) -> torch.device: ...

    def explain_refusal(self, reads: Collection[str], writes: Collection[str]) -> str | None:
        """Why it cannot record or change one of these points; None if it can."""
        ...

    def forward(
        self,
        tokens: Int[Tensor, "batch seq"],
        past: Past | None = None,
        *,
        last: int | None = None,
        hooks: Hooks = no_hooks,
    ) -> Float[Tensor, "batch last vocab"]:
        """As `Transformer.forward`."""
        ...

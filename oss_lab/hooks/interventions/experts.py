"""Experts: silenced, forbidden, forced, or replaced by the next best."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_lab.hooks.interventions.base import Intervention, Place


@dataclass(frozen=True, kw_only=True)
class ScaleExpert(Intervention):
    """Multiply an expert's contribution wherever it is chosen; by=0 ablates it.

    Routing and the other experts' weights stay: see `BiasExpert` to have another chosen.
    """

    expert: int
    by: float = 0.0
    WRITES: ClassVar[str] = "moe.expert_weights"
    READS: ClassVar[tuple[str, ...]] = ("moe.expert_ids",)

    def change(self, x: Tensor, at: Place) -> Tensor:
        chosen = (at.handed["moe.expert_ids"] == self.expert) & at.rows(self.positions)[:, None]
        return torch.where(chosen, x * self.by, x)


@dataclass(frozen=True, kw_only=True)
class ScaleSlot(Intervention):
    """Multiply the contribution of the expert at one rank (0: the likeliest); by=0 ablates it."""

    slot: int
    by: float = 0.0
    WRITES: ClassVar[str] = "moe.expert_weights"

    def change(self, x: Tensor, at: Place) -> Tensor:
        factor = torch.ones(x.shape[1:], dtype=x.dtype, device=x.device)
        factor[at.rows(self.positions), self.slot] = self.by
        return x * factor


@dataclass(frozen=True, kw_only=True)
class BiasExpert(Intervention):
    """Add to an expert's router logit; by=-inf forbids it, and the next best is chosen."""

    expert: int
    by: float = -math.inf
    WRITES: ClassVar[str] = "moe.router_logits"

    def change(self, x: Tensor, at: Place) -> Tensor:
        added = torch.zeros(x.shape[1:], dtype=x.dtype, device=x.device)
        added[at.rows(self.positions), self.expert] = self.by
        return x + added


@dataclass(frozen=True, kw_only=True)
class ForceExpert(Intervention):
    """Put an expert at one rank of the choice; its weight follows from its own router logit.

    Where it is chosen already nothing changes.
    """

    expert: int
    slot: int
    WRITES: ClassVar[str] = "moe.expert_ids"

    def change(self, x: Tensor, at: Place) -> Tensor:
        absent = ~(x == self.expert).any(-1) & at.rows(self.positions)
        forced = x.clone()
        forced[..., self.slot] = torch.where(absent, self.expert, x[..., self.slot])
        return forced


@dataclass(frozen=True, kw_only=True)
class SwapIn(Intervention):
    """Replace the expert at one rank by the best that was not chosen, such as the fifth of four."""

    slot: int
    WRITES: ClassVar[str] = "moe.expert_ids"
    READS: ClassVar[tuple[str, ...]] = ("moe.router_logits",)

    def change(self, x: Tensor, at: Place) -> Tensor:
        next_best = best_of_the_rest(at.handed["moe.router_logits"], x)
        swapped = x.clone()
        rows = at.rows(self.positions)
        swapped[..., self.slot] = torch.where(rows, next_best.to(x.dtype), x[..., self.slot])
        return swapped


def best_of_the_rest(
    router_logits: Float[Tensor, "batch seq expert"], chosen: Int[Tensor, "batch seq slot"]
) -> Int[Tensor, "batch seq"]:
    """The likeliest expert that is not among the chosen ones."""
    return router_logits.scatter(-1, chosen.long(), -math.inf).argmax(-1)

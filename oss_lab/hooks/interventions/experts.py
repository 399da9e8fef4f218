"""Experts: ablate, scale, ban or force them, or use the next best."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.errors import LabError
from oss_lab.hooks.interventions.at import At
from oss_lab.hooks.interventions.base import Intervention, among
from oss_lab.hooks.interventions.fields import BIAS, FINITE, INTEGER, REQUIRED, WHICH, Which

Weights = Float[Tensor, "row seq slot"]
Logits = Float[Tensor, "row seq expert"]
Ids = Int[Tensor, "row seq slot"]


@dataclass(frozen=True, kw_only=True)
class AblateExpert(Intervention):
    """Drop an expert's contribution wherever it is chosen.

    Routing and the other experts' weights are unchanged; with `BanExpert`, another one is chosen.
    """

    expert: Which = field(default=REQUIRED, metadata=WHICH)
    WRITES: ClassVar[str] = "moe.expert_weights"
    READS: ClassVar[tuple[str, ...]] = ("moe.expert_ids",)

    def change(self, x: Weights, at: At) -> Weights:
        return x.masked_fill(_where_chosen(self.expert, self.selected(at), at), 0)


@dataclass(frozen=True, kw_only=True)
class ScaleExpert(Intervention):
    """Multiply an expert's contribution wherever it is chosen; the rest as in `AblateExpert`."""

    expert: Which = field(default=REQUIRED, metadata=WHICH)
    by: float = field(default=REQUIRED, metadata=FINITE)
    WRITES: ClassVar[str] = "moe.expert_weights"
    READS: ClassVar[tuple[str, ...]] = ("moe.expert_ids",)

    def change(self, x: Weights, at: At) -> Weights:
        return torch.where(_where_chosen(self.expert, self.selected(at), at), x * self.by, x)


def _where_chosen(
    experts: Which, selected: Bool[Tensor, "row seq"], at: At
) -> Bool[Tensor, "row seq slot"]:
    return among(experts, at.handed["moe.expert_ids"].long()) & selected[..., None]


@dataclass(frozen=True, kw_only=True)
class AblateSlot(Intervention):
    """Drop the contribution of the expert at one rank of the choice (0: the likeliest)."""

    slot: int = field(default=REQUIRED, metadata=INTEGER)
    WRITES: ClassVar[str] = "moe.expert_weights"

    def change(self, x: Weights, at: At) -> Weights:
        return x.masked_fill(_at_slot(x, self.slot, self.selected(at)), 0)


@dataclass(frozen=True, kw_only=True)
class ScaleSlot(Intervention):
    """Multiply the contribution of the expert at one rank of the choice (0: the likeliest)."""

    slot: int = field(default=REQUIRED, metadata=INTEGER)
    by: float = field(default=REQUIRED, metadata=FINITE)
    WRITES: ClassVar[str] = "moe.expert_weights"

    def change(self, x: Weights, at: At) -> Weights:
        return torch.where(_at_slot(x, self.slot, self.selected(at)), x * self.by, x)


def _at_slot(
    x: Tensor, slot: int, selected: Bool[Tensor, "row seq"]
) -> Bool[Tensor, "row seq slot"]:
    return (torch.arange(x.shape[-1], device=x.device) == slot) & selected[..., None]


@dataclass(frozen=True, kw_only=True)
class BanExpert(Intervention):
    """Set an expert's router logit to -inf: it is never chosen, the next best one is."""

    expert: Which = field(default=REQUIRED, metadata=WHICH)
    WRITES: ClassVar[str] = "moe.router_logits"

    def check(self, config: ModelConfig) -> None:
        super().check(config)
        banned = among(self.expert, torch.arange(config.num_experts))
        left = config.num_experts - int(banned.sum())
        if left < config.experts_per_token:
            raise LabError(
                f"{self}: it leaves {left} of {config.num_experts} experts, and every token needs"
                f" {config.experts_per_token}; ban fewer"
            )

    def change(self, x: Logits, at: At) -> Logits:
        return x.masked_fill(_of_experts(x, self.expert, self.selected(at)), -math.inf)


@dataclass(frozen=True, kw_only=True)
class BiasExpert(Intervention):
    """Add to an expert's router logit: it is chosen more or less often, and weighted by it."""

    expert: Which = field(default=REQUIRED, metadata=WHICH)
    by: float = field(default=REQUIRED, metadata=BIAS)
    WRITES: ClassVar[str] = "moe.router_logits"

    def change(self, x: Logits, at: At) -> Logits:
        return torch.where(_of_experts(x, self.expert, self.selected(at)), x + self.by, x)


def _of_experts(
    x: Logits, experts: Which, selected: Bool[Tensor, "row seq"]
) -> Bool[Tensor, "row seq expert"]:
    return among(experts, torch.arange(x.shape[-1], device=x.device)) & selected[..., None]


@dataclass(frozen=True, kw_only=True)
class ForceExpert(Intervention):
    """Put an expert at one rank of the choice; its weight follows from its own router logit.

    Where it is already chosen, nothing changes.
    """

    expert: int = field(default=REQUIRED, metadata=INTEGER)
    slot: int = field(default=REQUIRED, metadata=INTEGER)
    WRITES: ClassVar[str] = "moe.expert_ids"

    def change(self, x: Ids, at: At) -> Ids:
        absent = ~(x == self.expert).any(-1)
        return x.masked_fill(_at_slot(x, self.slot, self.selected(at) & absent), self.expert)


@dataclass(frozen=True, kw_only=True)
class UseNextBest(Intervention):
    """Replace the expert at one rank by the best one not chosen, such as the fifth of four.

    Where every other expert is banned, nothing changes.
    """

    slot: int = field(default=REQUIRED, metadata=INTEGER)
    WRITES: ClassVar[str] = "moe.expert_ids"
    READS: ClassVar[tuple[str, ...]] = ("moe.router_logits",)

    def check(self, config: ModelConfig) -> None:
        super().check(config)
        check_next_best(config, f"{self}: ")

    def change(self, x: Ids, at: At) -> Ids:
        logits = at.handed["moe.router_logits"]
        best = best_of_the_rest(logits, x)[..., None]
        exists = (logits.gather(-1, best) > -math.inf) & (x != best).all(-1, keepdim=True)
        replaced = _at_slot(x, self.slot, self.selected(at)) & exists
        return torch.where(replaced, best.to(x.dtype), x)


def check_next_best(config: ModelConfig, what: str = "") -> None:
    """Raise LabError where every expert is chosen for every token."""
    if config.experts_per_token == config.num_experts:
        raise LabError(
            f"{what}this model uses all of its {config.num_experts} experts for every token, so"
            " there is no next best"
        )


def best_of_the_rest(
    router_logits: Float[Tensor, "row seq expert"], chosen: Int[Tensor, "row seq slot"]
) -> Int[Tensor, "row seq"]:
    """The likeliest expert that is not among the chosen ones."""
    return router_logits.scatter(-1, chosen.long(), -math.inf).argmax(-1)

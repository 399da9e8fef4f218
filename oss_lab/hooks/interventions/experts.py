"""Interventions on experts: ablate, scale, ban or force them, or use the next best."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.errors import LabError
from oss_lab.hooks.interventions.at import At
from oss_lab.hooks.interventions.base import Intervention, is_among
from oss_lab.hooks.interventions.fields import BIAS, FINITE, INTEGER, REQUIRED, WHICH, Which

Weights = Float[Tensor, "row seq slot"]
Logits = Float[Tensor, "row seq expert"]
Ids = Int[Tensor, "row seq slot"]


@dataclass(frozen=True, kw_only=True)
class AblateExpert(Intervention):
    """Remove an expert's contribution wherever it is chosen.

    Routing and the other experts' weights do not change. `BanExpert` lets another expert be chosen.
    """

    expert: Which = field(default=REQUIRED, metadata=WHICH)
    WRITES: ClassVar[str] = "moe.expert_weights"
    READS: ClassVar[tuple[str, ...]] = ("moe.expert_ids",)

    def change(self, x: Weights, at: At) -> Weights:
        return x.masked_fill(_mask_chosen(self.expert, self.select_tokens(at), at), 0)


@dataclass(frozen=True, kw_only=True)
class ScaleExpert(Intervention):
    """Multiply an expert's contribution wherever it is chosen; routing does not change."""

    expert: Which = field(default=REQUIRED, metadata=WHICH)
    by: float = field(default=REQUIRED, metadata=FINITE)
    WRITES: ClassVar[str] = "moe.expert_weights"
    READS: ClassVar[tuple[str, ...]] = ("moe.expert_ids",)

    def change(self, x: Weights, at: At) -> Weights:
        return torch.where(_mask_chosen(self.expert, self.select_tokens(at), at), x * self.by, x)


def _mask_chosen(
    experts: Which, selected: Bool[Tensor, "row seq"], at: At
) -> Bool[Tensor, "row seq slot"]:
    return is_among(experts, at.earlier_values["moe.expert_ids"].long()) & selected[..., None]


@dataclass(frozen=True, kw_only=True)
class AblateSlot(Intervention):
    """Remove the contribution of the expert in one slot (0 is the one with the largest logit)."""

    slot: int = field(default=REQUIRED, metadata=INTEGER)
    WRITES: ClassVar[str] = "moe.expert_weights"

    def change(self, x: Weights, at: At) -> Weights:
        return x.masked_fill(_mask_slot(x, self.slot, self.select_tokens(at)), 0)


@dataclass(frozen=True, kw_only=True)
class ScaleSlot(Intervention):
    """Multiply the contribution of the expert in one slot (0 is the one with the largest logit)."""

    slot: int = field(default=REQUIRED, metadata=INTEGER)
    by: float = field(default=REQUIRED, metadata=FINITE)
    WRITES: ClassVar[str] = "moe.expert_weights"

    def change(self, x: Weights, at: At) -> Weights:
        return torch.where(_mask_slot(x, self.slot, self.select_tokens(at)), x * self.by, x)


def _mask_slot(
    x: Tensor, slot: int, selected: Bool[Tensor, "row seq"]
) -> Bool[Tensor, "row seq slot"]:
    return (torch.arange(x.shape[-1], device=x.device) == slot) & selected[..., None]


@dataclass(frozen=True, kw_only=True)
class BanExpert(Intervention):
    """Set an expert's router logit to -inf, so it is never chosen and the next best expert is."""

    expert: Which = field(default=REQUIRED, metadata=WHICH)
    WRITES: ClassVar[str] = "moe.router_logits"

    def check(self, config: ModelConfig) -> None:
        super().check(config)
        banned = is_among(self.expert, torch.arange(config.num_experts))
        left = config.num_experts - int(banned.sum())
        if left < config.experts_per_token:
            raise LabError(
                f"{self} leaves {left} of {config.num_experts} experts, but every token needs"
                f" {config.experts_per_token}; ban fewer"
            )

    def change(self, x: Logits, at: At) -> Logits:
        return x.masked_fill(_mask_expert(x, self.expert, self.select_tokens(at)), -math.inf)


@dataclass(frozen=True, kw_only=True)
class BiasExpert(Intervention):
    """Add to an expert's router logit, which changes how often it is chosen, and its weight."""

    expert: Which = field(default=REQUIRED, metadata=WHICH)
    by: float = field(default=REQUIRED, metadata=BIAS)
    WRITES: ClassVar[str] = "moe.router_logits"

    def change(self, x: Logits, at: At) -> Logits:
        return torch.where(_mask_expert(x, self.expert, self.select_tokens(at)), x + self.by, x)


def _mask_expert(
    x: Logits, experts: Which, selected: Bool[Tensor, "row seq"]
) -> Bool[Tensor, "row seq expert"]:
    return is_among(experts, torch.arange(x.shape[-1], device=x.device)) & selected[..., None]


@dataclass(frozen=True, kw_only=True)
class ForceExpert(Intervention):
    """Put an expert into one slot; its weight is computed from its router logit.

    Nothing changes at tokens that already chose it.
    """

    expert: int = field(default=REQUIRED, metadata=INTEGER)
    slot: int = field(default=REQUIRED, metadata=INTEGER)
    WRITES: ClassVar[str] = "moe.expert_ids"

    def change(self, x: Ids, at: At) -> Ids:
        absent = ~(x == self.expert).any(-1)
        return x.masked_fill(_mask_slot(x, self.slot, self.select_tokens(at) & absent), self.expert)


@dataclass(frozen=True, kw_only=True)
class UseNextBest(Intervention):
    """Replace the expert in one slot by the best one not chosen (the fifth, if four are chosen).

    Nothing changes where every other expert is banned.
    """

    slot: int = field(default=REQUIRED, metadata=INTEGER)
    WRITES: ClassVar[str] = "moe.expert_ids"
    READS: ClassVar[tuple[str, ...]] = ("moe.router_logits",)

    def check(self, config: ModelConfig) -> None:
        super().check(config)
        check_next_best(config, f"{self}: ")

    def change(self, x: Ids, at: At) -> Ids:
        logits = at.earlier_values["moe.router_logits"]
        best = find_next_best(logits, x)[..., None]
        exists = (logits.gather(-1, best) > -math.inf) & (x != best).all(-1, keepdim=True)
        replaced = _mask_slot(x, self.slot, self.select_tokens(at)) & exists
        return torch.where(replaced, best.to(x.dtype), x)


def check_next_best(config: ModelConfig, what: str = "") -> None:
    """Raise LabError if the model uses every expert for every token."""
    if config.experts_per_token == config.num_experts:
        raise LabError(
            f"{what}this model uses all of its {config.num_experts} experts for every token, so"
            " there is no next best"
        )


def find_next_best(
    router_logits: Float[Tensor, "row seq expert"], chosen: Int[Tensor, "row seq slot"]
) -> Int[Tensor, "row seq"]:
    """The expert with the largest router logit among those not chosen."""
    return router_logits.scatter(-1, chosen.long(), -math.inf).argmax(-1)

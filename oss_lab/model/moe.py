"""The mixture of experts: a router picks a few experts, a softmax over those weighs them.

The softmax comes after the choice, so the weights always sum to one. Each expert is a small MLP
with gpt-oss's own activation: gate and up rows interleaved, the gate clamped from above, up on
both sides and shifted by one, sigmoid slope 1.702. An expert's output bias is weighted with it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from oss_lab.config import ModelConfig
from oss_lab.model.experts import DenseExperts, PackedExperts
from oss_lab.model.norm import RMSNorm
from oss_lab.model.tap import Tap

ExpertBank = PackedExperts | DenseExperts
BankFactory = Callable[[int, int, int], ExpertBank]


def clamped_swiglu(
    gate: Float[Tensor, "*rows width"],
    up: Float[Tensor, "*rows width"],
    alpha: float,
    limit: float,
) -> Float[Tensor, "*rows width"]:
    """gate * sigmoid(alpha * gate) * (up + 1), in float32; gate <= limit, |up| <= limit."""
    wide = gate.float().clamp(max=limit)
    shifted = up.float().clamp(-limit, limit) + 1
    return (wide * torch.sigmoid(alpha * wide) * shifted).to(gate.dtype)


class MixtureOfExperts(nn.Module):
    """Norm, router, the chosen experts and their weighted sum; without the residual."""

    def __init__(self, config: ModelConfig, bank: BankFactory) -> None:
        super().__init__()
        hidden, width, experts = config.hidden_size, config.intermediate_size, config.num_experts
        self.experts, self.slots = experts, config.experts_per_token
        self.alpha, self.limit = config.swiglu_alpha, config.swiglu_limit
        self.norm = RMSNorm(hidden, config.rms_norm_eps)
        self.gate = nn.Linear(hidden, experts)
        self.mlp1_weight = bank(experts, 2 * width, hidden)
        self.mlp1_bias = nn.Parameter(torch.zeros(experts, 2 * width))
        self.mlp2_weight = bank(experts, hidden, width)
        self.mlp2_bias = nn.Parameter(torch.zeros(experts, hidden))

    def forward(
        self, x: Float[Tensor, "batch seq hidden"], tap: Tap
    ) -> Float[Tensor, "batch seq hidden"]:
        normed = tap("moe.norm", self.norm(x))
        router_logits = tap("moe.router_logits", self.gate(normed))
        ids = tap("moe.expert_ids", router_logits.topk(self.slots, dim=-1).indices)
        chosen = router_logits.gather(-1, ids)
        weights = chosen.softmax(dim=-1, dtype=torch.float32).to(x.dtype)
        weights = tap("moe.expert_weights", weights)

        group = Group.by_expert(ids, self.experts)
        inputs = normed.flatten(0, 1).index_select(0, group.order // self.slots)
        gate_up = group.project(inputs, self.mlp1_weight, self.mlp1_bias).view(*ids.shape, -1)
        gate, up = tap("moe.gate", gate_up[..., ::2]), tap("moe.up", gate_up[..., 1::2])
        act = tap("moe.act", clamped_swiglu(gate, up, self.alpha, self.limit))
        inputs = act.flatten(0, 2).index_select(0, group.order)
        outputs = group.project(inputs, self.mlp2_weight, self.mlp2_bias).view(*ids.shape, -1)
        outputs = tap("moe.expert_out", outputs)
        return tap("moe.out", (outputs * weights[..., None]).sum(dim=-2))


@dataclass(frozen=True)
class Group:
    """Token slots sorted by their expert, so that each expert in use takes one matrix product.

    Attributes:
        order: the token slot at each place of the sorted ones.
        sizes: how many places belong to each of the `used` experts.
    """

    order: Int[Tensor, "token_slot"]
    used: list[int]
    sizes: list[int]

    @classmethod
    def by_expert(cls, ids: Int[Tensor, "batch seq slot"], experts: int) -> Self:
        counts = torch.bincount(ids.flatten(), minlength=experts).tolist()
        used = [expert for expert, count in enumerate(counts) if count]
        order = ids.flatten().argsort(stable=True)
        return cls(order, used, [counts[expert] for expert in used])

    def project(
        self,
        inputs: Float[Tensor, "token_slot columns"],
        bank: ExpertBank,
        bias: Float[Tensor, "expert rows"],
    ) -> Float[Tensor, "token_slot rows"]:
        """Sorted inputs through the matrix and bias of their experts, back at their token slots."""
        by_expert = torch.cat(
            [
                F.linear(x, bank.matrix(expert, x.dtype), bias.select(0, expert))
                for expert, x in zip(self.used, inputs.split(self.sizes), strict=True)
            ]
        )
        return torch.empty_like(by_expert).index_copy_(0, self.order, by_expert)

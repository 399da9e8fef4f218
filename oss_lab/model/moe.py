"""The mixture of experts: a router picks a few experts, a softmax over those weighs them.

The softmax comes after the choice, so the weights always sum to one. Each expert is a small MLP
with gpt-oss's own activation: gate and up rows interleaved, the gate clamped from above, up on
both sides and shifted by one, sigmoid slope 1.702. An expert's weight applies to its output bias
too.
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
from oss_lab.model.hook import LayerHook
from oss_lab.model.norm import RMSNorm

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


def choose_experts(
    router_logits: Float[Tensor, "batch seq expert"], slots: int
) -> Int[Tensor, "batch seq slot"]:
    """The experts with the largest logits, by falling logit.

    Equal logits are ordered as torch.topk orders them on a CPU, on every device. In bfloat16 equal
    logits are common, and this is the order of transformers on a CPU.
    """
    return router_logits.cpu().topk(slots, dim=-1).indices.to(router_logits.device)


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
        self, x: Float[Tensor, "batch seq hidden"], hook: LayerHook
    ) -> Float[Tensor, "batch seq hidden"]:
        normed = hook("moe.norm", self.norm(x))
        router_logits = hook("moe.router_logits", self.gate(normed))
        ids = hook("moe.expert_ids", choose_experts(router_logits, self.slots))
        chosen = router_logits.gather(-1, ids)
        weights = chosen.softmax(dim=-1, dtype=torch.float32).to(x.dtype)
        weights = hook("moe.expert_weights", weights)

        group = Group.by_expert(ids, self.experts)
        inputs = normed.flatten(0, 1).index_select(0, group.order // self.slots)
        gate_up = group.project(inputs, self.mlp1_weight, self.mlp1_bias).view(*ids.shape, -1)
        gate, up = hook("moe.gate", gate_up[..., ::2]), hook("moe.up", gate_up[..., 1::2])
        act = hook("moe.act", clamped_swiglu(gate, up, self.alpha, self.limit))
        inputs = act.flatten(0, 2).index_select(0, group.order)
        outputs = group.project(inputs, self.mlp2_weight, self.mlp2_bias).view(*ids.shape, -1)
        outputs = hook("moe.expert_out", outputs)
        return hook("moe.out", (outputs * weights[..., None]).sum(dim=-2))


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
        matrices = bank.matrices(self.used, inputs.dtype)
        pieces = zip(self.used, matrices, inputs.split(self.sizes), strict=True)
        by_expert = torch.cat(
            [F.linear(x, matrix, bias.select(0, expert)) for expert, matrix, x in pieces]
        )
        return torch.empty_like(by_expert).index_copy_(0, self.order, by_expert)

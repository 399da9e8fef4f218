"""The mixture of experts: a router picks a few experts, a softmax over those weighs them.

The softmax comes after the choice, so the weights always sum to one. Each expert is a small MLP
with gpt-oss's own activation: gate and up rows interleaved, the gate clamped from above, up on
both sides and shifted by one, sigmoid slope 1.702. An expert's output bias is weighted with it.
"""

from collections.abc import Callable, Sequence

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
    gate_up: Float[Tensor, "rows two_width"], alpha: float, limit: float
) -> Float[Tensor, "rows width"]:
    """gate * sigmoid(alpha * gate) * (up + 1), in float32; even columns gate, odd columns up."""
    wide = gate_up.float()
    gate = wide[..., ::2].clamp(max=limit)
    up = wide[..., 1::2].clamp(-limit, limit)
    return (gate * torch.sigmoid(alpha * gate) * (up + 1)).to(gate_up.dtype)


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
        chosen, ids = router_logits.topk(self.slots, dim=-1)
        ids = tap("moe.expert_ids", ids)
        weights = chosen.softmax(dim=-1, dtype=torch.float32).to(x.dtype)
        weights = tap("moe.expert_weights", weights)
        outputs = self._run(normed.flatten(0, 1), ids.flatten()).view(*ids.shape, -1)
        outputs = tap("moe.expert_out", outputs)
        return tap("moe.out", (outputs * weights[..., None]).sum(dim=-2))

    def _run(
        self, tokens: Float[Tensor, "token hidden"], ids: Int[Tensor, "token_slot"]
    ) -> Float[Tensor, "token_slot hidden"]:
        """Every token through each of its experts, one matrix product per expert in use."""
        order = ids.argsort(stable=True)
        counts = torch.bincount(ids, minlength=self.experts).tolist()
        used = [expert for expert, count in enumerate(counts) if count]
        sizes = [counts[expert] for expert in used]
        inputs = tokens.index_select(0, order // self.slots).split(sizes)
        gate_up = project(inputs, used, self.mlp1_weight, self.mlp1_bias)
        activation = clamped_swiglu(gate_up, self.alpha, self.limit)
        by_expert = project(activation.split(sizes), used, self.mlp2_weight, self.mlp2_bias)
        return torch.empty_like(by_expert).index_copy_(0, order, by_expert)


def project(
    inputs: Sequence[Float[Tensor, "some columns"]],
    used: Sequence[int],
    bank: ExpertBank,
    bias: Float[Tensor, "expert rows"],
) -> Float[Tensor, "all rows"]:
    """Each input through the matrix and bias of its expert, one after the other."""
    return torch.cat(
        [
            F.linear(x, bank.matrix(expert, x.dtype), bias.select(0, expert))
            for expert, x in zip(used, inputs, strict=True)
        ]
    )

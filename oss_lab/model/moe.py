"""The mixture of experts: many small networks, of which each token uses a few.

A router computes one logit per expert and chooses the experts with the largest ones, 4 of 32 in
gpt-oss-20b. A softmax over the chosen logits alone gives their weights, which sum to one. An expert
has two matrices: the first computes gate and up, which the activation combines, and the second
projects the result back to the hidden size. The sum of the experts' outputs, each times its weight,
is added to the residual stream.

`run_experts_one_by_one` is this computation as a plain loop. `MixtureOfExperts.forward` instead
sorts the tokens by expert, to use each matrix once for all of its tokens. A test checks that both
give the same result.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from oss_lab.config import ModelConfig
from oss_lab.model.experts import ExpertMatrices, MakeExperts
from oss_lab.model.hook import LayerHook
from oss_lab.model.norm import Normalize, RMSNorm, rms_norm


def choose_experts(
    router_logits: Float[Tensor, "batch seq expert"], slots: int
) -> Int[Tensor, "batch seq slot"]:
    """The `slots` experts with the largest logits, largest first.

    Equal logits, common in bfloat16, are ordered as torch.topk orders them on a CPU, on every
    device. A CPU run of Hugging Face transformers has the same order.
    """
    return router_logits.cpu().topk(slots, dim=-1).indices.to(router_logits.device)


def weigh_experts(
    router_logits: Float[Tensor, "batch seq expert"], ids: Int[Tensor, "batch seq slot"]
) -> Float[Tensor, "batch seq slot"]:
    """The weights of the chosen experts: a softmax over their logits only, which sums to one.

    The logits of other experts have no effect. A single chosen expert has weight 1. Computed in
    float32, then rounded to the logits' dtype.
    """
    chosen = router_logits.gather(-1, ids)
    return chosen.softmax(dim=-1, dtype=torch.float32).to(router_logits.dtype)


def clamped_swiglu(
    gate: Float[Tensor, "*rows width"],
    up: Float[Tensor, "*rows width"],
    alpha: float,
    limit: float,
) -> Float[Tensor, "*rows width"]:
    """g * sigmoid(alpha * g) * (u + 1) with g = min(gate, limit), u = clamp(up, -limit, limit).

    The gate is clamped from above only: a very negative gate gives almost 0. gpt-oss has alpha
    1.702 and limit 7. Computed in float32, then rounded to the gate's dtype.
    """
    g = gate.float().clamp(max=limit)
    u = up.float().clamp(-limit, limit)
    return (g * torch.sigmoid(alpha * g) * (u + 1)).to(gate.dtype)


def split_gate_up(
    gate_up: Float[Tensor, "*rows 2*width"],
) -> tuple[Float[Tensor, "*rows width"], Float[Tensor, "*rows width"]]:
    """Gate and up of an expert. Its first matrix alternates their rows: gate, up, gate, up, ..."""
    return gate_up[..., 0::2], gate_up[..., 1::2]


def run_experts_one_by_one(
    x: Float[Tensor, "token hidden"],
    ids: Int[Tensor, "token slot"],
    weights: Float[Tensor, "token slot"],
    mlp1_weight: Sequence[Float[Tensor, "2*width hidden"]],
    mlp1_bias: Float[Tensor, "expert 2*width"],
    mlp2_weight: Sequence[Float[Tensor, "hidden width"]],
    mlp2_bias: Float[Tensor, "expert hidden"],
    alpha: float,
    limit: float,
) -> Float[Tensor, "token hidden"]:
    """What the experts add to each token: the definition, as a loop. `x` is already normed.

    The rows of an expert's first matrix alternate: gate, up, gate, up, ... The weight applies to
    the whole output of an expert, its second bias included.
    """
    out = torch.zeros_like(x)
    for token in range(len(x)):
        for slot, expert in enumerate(ids[token].tolist()):
            gate_up = mlp1_weight[expert] @ x[token] + mlp1_bias[expert]
            act = clamped_swiglu(gate_up[0::2], gate_up[1::2], alpha, limit)
            expert_out = mlp2_weight[expert] @ act + mlp2_bias[expert]
            out[token] += weights[token, slot] * expert_out
    return out


Choose = Callable[[Tensor, int], Tensor]
"""`choose_experts`, or another function of the same arguments."""
Weigh = Callable[[Tensor, Tensor], Tensor]
"""`weigh_experts`, or another function of the same arguments."""
Split = Callable[[Tensor], tuple[Tensor, Tensor]]
"""`split_gate_up`, or another function of the same arguments."""
Activate = Callable[[Tensor, Tensor, float, float], Tensor]
"""`clamped_swiglu`, or another function of the same arguments."""


class MixtureOfExperts(nn.Module):
    """The experts of one layer; their output is added to the residual stream by `Block`."""

    def __init__(
        self,
        config: ModelConfig,
        make_experts: MakeExperts,
        *,
        rms_norm: Normalize = rms_norm,
        choose_experts: Choose = choose_experts,
        weigh_experts: Weigh = weigh_experts,
        split_gate_up: Split = split_gate_up,
        swiglu: Activate = clamped_swiglu,
    ) -> None:
        super().__init__()
        self.choose_experts, self.weigh_experts = choose_experts, weigh_experts
        self.split_gate_up, self.swiglu = split_gate_up, swiglu
        hidden, width, experts = config.hidden_size, config.intermediate_size, config.num_experts
        self.num_experts, self.slots = experts, config.experts_per_token
        self.alpha, self.limit = config.swiglu_alpha, config.swiglu_limit
        self.norm = RMSNorm(hidden, config.rms_norm_eps, rms_norm)
        self.gate = nn.Linear(hidden, experts)  # the router; not the gate inside an expert
        self.mlp1_weight = make_experts(experts, 2 * width, hidden)
        self.mlp1_bias = nn.Parameter(torch.zeros(experts, 2 * width))
        self.mlp2_weight = make_experts(experts, hidden, width)
        self.mlp2_bias = nn.Parameter(torch.zeros(experts, hidden))

    def forward(
        self, x: Float[Tensor, "batch seq hidden"], hook: LayerHook
    ) -> Float[Tensor, "batch seq hidden"]:
        """What the experts add to the residual stream `x`."""
        normed = hook("moe.norm", self.norm(x))
        router_logits = hook("moe.router_logits", self.gate(normed))
        ids = hook("moe.expert_ids", self.choose_experts(router_logits, self.slots))
        weights = hook("moe.expert_weights", self.weigh_experts(router_logits, ids))

        # The chosen experts of all tokens: gate, up and act are [batch seq slot width].
        by_expert = sort_by_expert(ids, self.num_experts)
        inputs = normed.flatten(0, 1).index_select(0, by_expert.order // self.slots)
        gate_up = by_expert.linear(inputs, self.mlp1_weight, self.mlp1_bias).view(*ids.shape, -1)
        gate, up = self.split_gate_up(gate_up)
        gate, up = hook("moe.gate", gate), hook("moe.up", up)
        act = hook("moe.act", self.swiglu(gate, up, self.alpha, self.limit))
        inputs = act.flatten(0, 2).index_select(0, by_expert.order)
        outputs = by_expert.linear(inputs, self.mlp2_weight, self.mlp2_bias).view(*ids.shape, -1)
        outputs = hook("moe.expert_out", outputs)
        return hook("moe.out", (outputs * weights[..., None]).sum(dim=-2))


@dataclass(frozen=True)
class SortedByExpert:
    """All slots of all tokens, sorted by expert, so one matrix product serves each used expert.

    Attributes:
        order: the slots in sorted order; slot s of token t has number t * slots + s.
        used: the experts that at least one token chose, in ascending order.
        sizes: how many slots belong to each of the `used` experts.
    """

    order: Int[Tensor, "token*slot"]
    used: list[int]
    sizes: list[int]

    def linear(
        self,
        inputs: Float[Tensor, "token*slot columns"],
        matrices: ExpertMatrices,
        bias: Float[Tensor, "expert rows"],
    ) -> Float[Tensor, "token*slot rows"]:
        """The expert's matrix times each input, plus its bias.

        The inputs are in sorted order; the outputs are back in the order of tokens and slots.
        """
        outputs = torch.cat(matrices.linear(self.used, inputs.split(self.sizes), bias))
        return torch.empty_like(outputs).index_copy_(0, self.order, outputs)


def sort_by_expert(ids: Int[Tensor, "batch seq slot"], num_experts: int) -> SortedByExpert:
    """Sort the slots of all tokens by their expert; within an expert, tokens keep their order."""
    counts = torch.bincount(ids.flatten(), minlength=num_experts).tolist()
    used = [expert for expert, count in enumerate(counts) if count]
    order = ids.flatten().argsort(stable=True)
    return SortedByExpert(order, used, [counts[expert] for expert in used])

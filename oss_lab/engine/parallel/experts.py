"""The mixture of experts of a split model: every process runs the experts that it holds.

This is expert parallelism. The router is in every process and chooses the same experts. A process
computes the slots of its experts and leaves the others zero; the sum over all processes is the
layer's output. The work is balanced only on average: the experts of one token may all be in one
process.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from oss_lab.config import ModelConfig
from oss_lab.engine.parallel.processes import Processes
from oss_lab.model.experts import ExpertMatrices, MakeExperts
from oss_lab.model.hook import LayerHook
from oss_lab.model.moe import MixtureOfExperts, sort_by_expert


class SplitExperts(MixtureOfExperts):
    """The experts `own` of a layer, with the router of all of them."""

    def __init__(
        self, config: ModelConfig, own: slice, make_experts: MakeExperts, processes: Processes
    ) -> None:
        super().__init__(replace(config, num_experts=own.stop - own.start), make_experts)
        self.gate = nn.Linear(config.hidden_size, config.num_experts)
        self.num_experts, self.own, self.processes = config.num_experts, own, processes

    def forward(
        self, x: Float[Tensor, "batch seq hidden"], hook: LayerHook
    ) -> Float[Tensor, "batch seq hidden"]:
        """As `MixtureOfExperts.forward`.

        At points inside an expert (`whole_hooks.BY_SLOT`), the slots of other processes are zero.
        A hook there gets all slots.
        """
        normed = hook("moe.norm", self.norm(x))
        router_logits = hook("moe.router_logits", self.gate(normed))
        ids = hook("moe.expert_ids", self.choose_experts(router_logits, self.slots))
        weights = hook("moe.expert_weights", self.weigh_experts(router_logits, ids))
        is_own = (ids >= self.own.start) & (ids < self.own.stop)
        part = self._mix(normed, ids, weights, is_own, hook)
        return hook("moe.out", self.processes.all_reduce(part).to(x.dtype))

    def _mix(
        self,
        normed: Float[Tensor, "batch seq hidden"],
        ids: Int[Tensor, "batch seq slot"],
        weights: Float[Tensor, "batch seq slot"],
        is_own: Bool[Tensor, "batch seq slot"],
        hook: LayerHook,
    ) -> Float[Tensor, "batch seq hidden"]:
        """The weighted sum of the outputs of this process's experts, in float32."""
        slots = is_own.flatten().nonzero()[:, 0]  # slot s of token t has number t * slots + s
        inputs = normed.flatten(0, 1).index_select(0, slots // self.slots)
        gate_up = self._run(inputs, slots, ids, self.mlp1_weight, self.mlp1_bias)
        gate, up = self.split_gate_up(gate_up)
        gate, up = hook("moe.gate", gate), hook("moe.up", up)
        act = self.swiglu(gate, up, self.alpha, self.limit)
        # A hook may have returned values for all slots; those of other processes are zeroed again.
        act = hook("moe.act", act.masked_fill(~is_own[..., None], 0))
        inputs = act.flatten(0, 2).index_select(0, slots)
        outputs = self._run(inputs, slots, ids, self.mlp2_weight, self.mlp2_bias)
        outputs = hook("moe.expert_out", outputs)
        return (outputs * (weights * is_own)[..., None]).sum(dim=-2, dtype=torch.float32)

    def _run(
        self,
        inputs: Float[Tensor, "own columns"],
        slots: Int[Tensor, "own"],
        ids: Int[Tensor, "batch seq slot"],
        matrices: ExpertMatrices,
        bias: Float[Tensor, "expert rows"],
    ) -> Float[Tensor, "batch seq slot rows"]:
        """One matrix of each chosen expert times the inputs of its slots; other slots are zero."""
        outputs = inputs.new_zeros(ids.numel(), bias.shape[1])
        if len(slots):
            own = sort_by_expert(ids.flatten()[slots] - self.own.start, len(bias))
            found = own.linear(inputs.index_select(0, own.order), matrices, bias)
            outputs.index_copy_(0, slots, found)
        return outputs.view(*ids.shape, -1)

"""A token's experts with gradients, one expert at a time: frozen weights, and what LoRA adds."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_kernels.autograd.packed_linear import packed_linear
from oss_kernels.autograd.swiglu import clamped_swiglu
from oss_kernels.backends import Backend
from oss_kernels.experts.weights import ExpertWeights

Adapt = Callable[[Literal["gate_up", "down"], int, Tensor], Tensor | None]
"""(which matrix, expert, its inputs) to what is added to the product, or None for nothing."""


def expert_mlp(
    x: Float[Tensor, "token hidden"],
    ids: Int[Tensor, "token slot"],
    weights: Float[Tensor, "token slot"],
    experts: ExpertWeights,
    *,
    alpha: float,
    limit: float,
    backend: Backend,
    adapt: Adapt | None = None,
) -> Float[Tensor, "token hidden"]:
    """The sum over a token's slots of weight * expert(x), with gradients of x and weights.

    `adapt` is called for each matrix of each expert in use, in ascending order of experts. It gets
    the inputs of the expert's tokens, which are in ascending order: [its tokens, hidden] for
    gate_up, [its tokens, width] for down. It returns what to add to their products, whose columns
    are in the order of the matrix's rows (`ExpertWeights`).

    Products are rounded to x's dtype. The weighted sum is float32 (float64 for float64 x). Every
    sum over slots or tokens has a fixed order, on every device.
    """
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32

    def multiply(which: Literal["gate_up", "down"], expert: int, inputs: Tensor) -> Tensor:
        blocks, scales, bias = (
            getattr(experts, f"{which}_{part}")[expert] for part in ("blocks", "scales", "bias")
        )
        product = packed_linear(inputs, blocks, scales, bias, backend=backend)
        added = None if adapt is None else adapt(which, expert, inputs)
        return product if added is None else product + added

    # Sorted by expert. Each pair of a token and a slot has its own row of inputs, so no index
    # occurs twice: torch's gradient of that is deterministic, and adds nothing.
    order = ids.flatten().argsort(stable=True)
    sizes = ids.flatten().bincount(minlength=experts.experts).tolist()
    inputs = x[:, None].expand(-1, ids.shape[1], -1).flatten(0, 1).index_select(0, order)
    outputs: list[Tensor] = []
    for expert, own in enumerate(inputs.split(sizes)):
        if len(own):
            gate_up = multiply("gate_up", expert, own)
            act = clamped_swiglu(gate_up, alpha=alpha, limit=limit, backend=backend)
            outputs.append(multiply("down", expert, act))
    by_slot = torch.cat(outputs).index_select(0, order.argsort()).view(*ids.shape, -1)
    return (by_slot * weights[..., None].to(wide)).sum(1).to(x.dtype)  # saves by_slot unwidened

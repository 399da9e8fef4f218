"""Products with an expert's frozen matrix, whose backward pass keeps no dense matrix.

An ordinary product keeps its matrix until the backward pass: for packed experts, a dequantized copy
of every matrix in use. Here the backward pass asks the experts for the matrix again. Kernels read
packed experts directly in both passes, a few rows at a time.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from oss_kernels.autograd.packed_linear import packed_linear
from oss_kernels.backends import Backend
from torch import Tensor

from oss_lab.model.experts import ExpertMatrices, PackedExperts


class FrozenProduct(torch.autograd.Function):
    """x W^T + bias for one expert's W. There is a gradient for x only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, experts: ExpertMatrices, expert: int, bias: Tensor) -> Tensor:
        ctx.experts, ctx.expert = experts, expert
        [matrix] = experts.matrices([expert], x.dtype)
        return F.linear(x, matrix, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        [matrix] = ctx.experts.matrices([ctx.expert], gradient.dtype)
        return gradient @ matrix, None, None, None


def frozen_linear(
    matrices: ExpertMatrices,
    experts: Sequence[int],
    inputs: Sequence[Float[Tensor, "token columns"]],
    bias: Float[Tensor, "expert rows"],
    kernels: Backend | None,
) -> list[Float[Tensor, "token rows"]]:
    """Each of these experts' matrix times its own inputs, plus its bias.

    Args:
        kernels: compute the products with packed experts; None for the reference modules.
    """
    if kernels is not None and isinstance(matrices, PackedExperts):
        blocks, scales = matrices.blocks, matrices.scales
        return [
            packed_linear(x, blocks[expert], scales[expert], bias[expert], backend=kernels)
            for expert, x in zip(experts, inputs, strict=True)
        ]
    return [
        FrozenProduct.apply(x, matrices, expert, bias[expert])  # pyright: ignore
        for expert, x in zip(experts, inputs, strict=True)
    ]

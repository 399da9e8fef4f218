"""Products with an expert's frozen matrix, whose backward pass keeps no dense matrix.

An ordinary product keeps its matrix until the backward pass: for packed experts, a dequantized copy
of every matrix in use. Here the backward pass asks the experts for the matrix again.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from oss_lab.model.experts import ExpertMatrices


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
) -> list[Float[Tensor, "token rows"]]:
    """Each of these experts' matrix times its own inputs, plus its bias."""
    return [
        FrozenProduct.apply(x, matrices, expert, bias[expert])  # pyright: ignore
        for expert, x in zip(experts, inputs, strict=True)
    ]

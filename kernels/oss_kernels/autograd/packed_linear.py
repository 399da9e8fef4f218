"""A linear layer with frozen MXFP4 weights and a gradient of its input."""

from typing import Any

from jaxtyping import Float, UInt8
from torch import Tensor
from torch.autograd import Function

from oss_kernels.autograd.once import refuse_second_derivative
from oss_kernels.backends import Backend


class PackedLinear(Function):
    """Saves references to the packed weight only: dx = dy · weight needs no x."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        blocks: Tensor,
        scales: Tensor,
        bias: Tensor | None,
        backend: Backend,
    ) -> Tensor:
        ctx.save_for_backward(blocks, scales)
        ctx.backend = backend
        ctx.bias_dtype = None if bias is None else bias.dtype
        return backend.mxfp4_linear(x, blocks, scales, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        (dy,) = gradients
        needs_x, _, _, needs_bias, _ = ctx.needs_input_grad
        dx = ctx.backend.mxfp4_linear_backward(dy, *ctx.saved_tensors) if needs_x else None
        dbias = dy.sum(0).to(ctx.bias_dtype) if needs_bias else None
        return dx, None, None, dbias, None


def packed_linear(
    x: Float[Tensor, "token columns"],
    blocks: UInt8[Tensor, "rows groups 16"],
    scales: UInt8[Tensor, "rows groups"],
    bias: Float[Tensor, "rows"] | None = None,
    *,
    backend: Backend,
) -> Float[Tensor, "token rows"]:
    """x · weightᵀ + bias (`mxfp4_linear.reference`), with gradients of x and bias.

    The weight is frozen, and never dequantized as a whole except by the reference. Has no second
    derivative: a backward with create_graph=True raises ValueError.
    """
    y = PackedLinear.apply(x, blocks, scales, bias, backend)
    assert isinstance(y, Tensor)
    return y

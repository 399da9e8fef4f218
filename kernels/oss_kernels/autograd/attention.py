"""Attention of whole sequences with gradients of q, k, v and the sinks."""

from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import Function

from oss_kernels.autograd.once import refuse_second_derivative
from oss_kernels.backends import Backend


class Attention(Function):
    """Saves its inputs, z and lse: no score and no share."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        sinks: Tensor,
        backend: Backend,
        window: int | None,
        starts: Tensor | None,
    ) -> Tensor:
        z, lse = backend.attention(q, k, v, sinks, window=window, starts=starts)
        ctx.save_for_backward(q, k, v, sinks, z, lse, starts)
        ctx.backend, ctx.window = backend, window
        return z

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        *saved, starts = ctx.saved_tensors
        options = {"window": ctx.window, "starts": starts}
        return (*ctx.backend.attention_backward(*saved, *gradients, **options), None, None, None)


def attention(
    q: Float[Tensor, "batch head seq head_dim"],
    k: Float[Tensor, "batch kv_head seq head_dim"],
    v: Float[Tensor, "batch kv_head seq head_dim"],
    sinks: Float[Tensor, "head"],
    *,
    backend: Backend,
    window: int | None = None,
    starts: Int[Tensor, "#batch seq"] | None = None,
) -> Float[Tensor, "batch head seq head_dim"]:
    """z of `attention.reference.attention`, with gradients of q, k, v and sinks.

    Query i sees positions max(starts[i], i - window + 1) to i. If several samples share a row,
    starts[i] is the first position of i's sample, so samples do not see each other. A query with
    starts[i] > i, such as padding, sees nothing: its z and its gradients are zero.

    Computed in float32 (float64 for float64 q, with the reference). z has q's dtype. Has no second
    derivative: a backward with create_graph=True raises ValueError.
    """
    z = Attention.apply(q, k, v, sinks, backend, window, starts)
    assert isinstance(z, Tensor)
    return z

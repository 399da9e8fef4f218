"""Checks of attention's arguments."""

from torch import Tensor

from oss_kernels.checks import (
    FLOATS,
    INTEGERS,
    check_axes,
    check_dtype,
    check_no_gradient,
    check_shape,
)


def check_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sinks: Tensor,
    padding: Tensor | None,
    starts: Tensor | None = None,
) -> None:
    """Raises ValueError if shapes or dtypes do not match, or if a gradient is needed."""
    batch, heads, seq, head_dim = check_axes("q", q, "batch head seq head_dim")
    rows, kv_heads, keys, _ = check_axes("k", k, "batch kv_head key head_dim")
    check_shape("k", k, 1 if rows == 1 else batch, kv_heads, keys, head_dim)
    check_shape("v", v, *k.shape)
    check_shape("sinks", sinks, heads)
    check_shape("padding", padding, batch)
    if starts is not None:
        check_shape("starts", starts, 1 if len(starts) == 1 else batch, seq)
    if kv_heads == 0 or heads % kv_heads or head_dim not in (16, 32, 64, 128):
        raise ValueError(
            f"attention has {heads} heads of size {head_dim} and {kv_heads} kv heads; kv heads "
            "must divide heads, and the head size must be 16, 32, 64 or 128"
        )
    for name, tensor in (("q", q), ("k", k), ("v", v), ("sinks", sinks)):
        check_dtype(name, tensor, *FLOATS)
    check_dtype("padding", padding, *INTEGERS)
    check_dtype("starts", starts, *INTEGERS)
    check_no_gradient(q, k, v, sinks)

"""Checks of the arguments of `qkv_rope`."""

from torch import Tensor

from oss_kernels.checks import (
    FLOATS,
    INTEGERS,
    check_axes,
    check_dtype,
    check_no_gradient,
    check_shape,
)


def check_qkv_rope(
    x: Tensor,
    norm_scale: Tensor,
    weight: Tensor,
    bias: Tensor,
    cos: Tensor,
    sin: Tensor,
    keys: Tensor,
    values: Tensor,
    at: Tensor,
) -> None:
    """Raises ValueError if shapes or dtypes do not match, or if a gradient is needed."""
    batch, hidden = check_axes("x", x, "batch hidden")
    rows, _ = check_axes("weight", weight, "rows hidden")
    _, kv_heads, capacity, head_dim = check_axes("keys", keys, "batch kv_head capacity head_dim")
    check_shape("norm_scale", norm_scale, hidden)
    check_shape("weight", weight, rows, hidden)
    check_shape("bias", bias, rows)
    check_shape("cos", cos, batch, head_dim)
    check_shape("sin", sin, batch, head_dim)
    check_shape("keys", keys, batch, kv_heads, capacity, head_dim)
    check_shape("values", values, batch, kv_heads, capacity, head_dim)
    if rows % head_dim or rows <= 2 * kv_heads * head_dim or head_dim % 2:
        raise ValueError(
            f"weight has {rows} rows; it must have {head_dim} (an even number) for each head of q "
            f"and for each of the {kv_heads} heads of k and of v"
        )
    if at.shape not in ((), (1,), (batch,)):
        raise ValueError(f"at has the shape {list(at.shape)}; it must be [] or {[batch]}")
    check_dtype("x", x, *FLOATS)
    for name, tensor in (("norm_scale", norm_scale), ("weight", weight), ("bias", bias)):
        check_dtype(name, tensor, *FLOATS)
    for name, tensor in (("cos", cos), ("sin", sin), ("keys", keys), ("values", values)):
        check_dtype(name, tensor, *FLOATS)
    check_dtype("at", at, *INTEGERS)
    check_no_gradient(x, norm_scale, weight, bias)

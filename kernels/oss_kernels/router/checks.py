"""Checks of the router's arguments."""

from torch import Tensor

from oss_kernels.checks import FLOATS, check_axes, check_dtype, check_no_gradient, check_shape


def check_router(x: Tensor, weight: Tensor, bias: Tensor, slots: int) -> None:
    """Raises ValueError if shapes or dtypes do not match, or if a gradient is needed."""
    _, hidden = check_axes("x", x, "token hidden")
    experts, _ = check_axes("weight", weight, "expert hidden")
    check_shape("weight", weight, experts, hidden)
    check_shape("bias", bias, experts)
    check_dtype("x", x, *FLOATS)
    check_dtype("weight", weight, x.dtype)
    check_dtype("bias", bias, *FLOATS)
    if not 0 < slots <= experts:
        raise ValueError(f"slots is {slots} experts per token; it must be from 1 to {experts}")
    check_no_gradient(x, weight, bias)

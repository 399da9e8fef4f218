"""Checks of RMSNorm's arguments."""

from torch import Tensor

from oss_kernels.checks import FLOATS, check_axes, check_dtype, check_no_gradient, check_shape


def check_rms_norm(x: Tensor, scale: Tensor) -> None:
    """Raises ValueError if shapes or dtypes do not match, or if a gradient is needed."""
    _, hidden = check_axes("x", x, "token hidden")
    check_shape("scale", scale, hidden)
    check_dtype("x", x, *FLOATS)
    check_dtype("scale", scale, *FLOATS)
    check_no_gradient(x, scale)

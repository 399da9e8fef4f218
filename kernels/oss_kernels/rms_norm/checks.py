"""What RMSNorm's kernel refuses."""

from torch import Tensor

from oss_kernels.checks import FLOATS, check_axes, check_dtype, check_no_gradient, check_shape


def check(x: Tensor, scale: Tensor) -> None:
    """Raises ValueError: sizes or types do not fit, or a gradient is wanted."""
    _, hidden = check_axes("x", x, "token hidden")
    check_shape("scale", scale, hidden)
    check_dtype("x", x, *FLOATS)
    check_dtype("scale", scale, *FLOATS)
    check_no_gradient(x, scale)

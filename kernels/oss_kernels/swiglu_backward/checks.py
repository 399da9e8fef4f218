"""Checks of the arguments of the activation's gradient."""

from torch import Tensor

from oss_kernels.checks import FLOATS, check_axes, check_dtype, check_no_gradient, check_shape


def check_swiglu_backward(gate_up: Tensor, dact: Tensor) -> None:
    """Raises ValueError if shapes or dtypes do not match, or if a gradient is needed."""
    rows, width = check_axes("dact", dact, "row width")
    check_shape("gate_up", gate_up, rows, 2 * width)
    check_dtype("gate_up", gate_up, *FLOATS)
    check_dtype("dact", dact, gate_up.dtype)
    check_no_gradient(gate_up, dact)

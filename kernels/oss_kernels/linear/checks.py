"""Checks of a linear layer's arguments."""

from torch import Tensor

from oss_kernels.checks import check_axes, check_dtype, check_no_gradient, check_shape


def check_linear(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None) -> None:
    """Raises ValueError if shapes do not match, dtypes differ, or a gradient is needed."""
    tokens, columns = check_axes("x", x, "token columns")
    rows, _ = check_axes("weight", weight, "rows columns")
    check_shape("weight", weight, rows, columns)
    check_shape("bias", bias, rows)
    check_shape("residual", residual, tokens, rows)
    for name, tensor in (("weight", weight), ("bias", bias), ("residual", residual)):
        check_dtype(name, tensor, x.dtype)
    check_no_gradient(x, weight, bias, residual)

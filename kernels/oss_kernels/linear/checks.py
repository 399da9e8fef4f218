"""What a linear layer's kernels refuse."""

from torch import Tensor

from oss_kernels.checks import check_axes, check_dtype, check_no_gradient, check_shape


def check(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None) -> None:
    """Raises ValueError: sizes do not fit, types differ, or a gradient is wanted."""
    tokens, columns = check_axes("x", x, "token columns")
    rows, _ = check_axes("weight", weight, "rows columns")
    check_shape("weight", weight, rows, columns)
    check_shape("bias", bias, rows)
    check_shape("residual", residual, tokens, rows)
    for name, tensor in (("weight", weight), ("bias", bias), ("residual", residual)):
        check_dtype(name, tensor, x.dtype)
    check_no_gradient(x, weight, bias, residual)

"""What the kernels of an MXFP4 linear layer refuse."""

from torch import Tensor

from oss_kernels.checks import FLOATS, check_axes, check_dtype, check_no_gradient, check_shape
from oss_kernels.mxfp4.checks import check_packed
from oss_kernels.mxfp4.reference import BLOCK


def check(x: Tensor, blocks: Tensor, scales: Tensor, bias: Tensor | None) -> None:
    """Raises ValueError: sizes or types do not fit, or a gradient is wanted."""
    rows, groups = check_axes("scales", scales, "rows groups")
    check_packed(blocks, scales)
    tokens, _ = check_axes("x", x, "token columns")
    check_shape("x", x, tokens, BLOCK * groups)
    check_shape("bias", bias, rows)
    check_dtype("bias", bias, x.dtype, *FLOATS)
    check_no_gradient(x, bias)

"""Checks of an MXFP4 linear layer's arguments."""

from torch import Tensor

from oss_kernels.checks import FLOATS, check_axes, check_dtype, check_no_gradient, check_shape
from oss_kernels.mxfp4.checks import check_packed
from oss_kernels.mxfp4.reference import BLOCK


def check_mxfp4_linear(x: Tensor, blocks: Tensor, scales: Tensor, bias: Tensor | None) -> None:
    """Raises ValueError if shapes or dtypes do not match, or if a gradient is needed."""
    rows, groups = check_axes("scales", scales, "rows groups")
    check_packed(blocks, scales)
    tokens, _ = check_axes("x", x, "token columns")
    check_shape("x", x, tokens, BLOCK * groups)
    check_shape("bias", bias, rows)
    check_dtype("bias", bias, x.dtype, *FLOATS)
    check_no_gradient(x, bias)

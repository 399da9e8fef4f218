"""Checks of the arguments of an MXFP4 linear layer's gradient."""

from torch import Tensor

from oss_kernels.checks import FLOATS, check_axes, check_dtype, check_no_gradient, check_shape
from oss_kernels.mxfp4.checks import check_packed


def check_mxfp4_linear_backward(dy: Tensor, blocks: Tensor, scales: Tensor) -> None:
    """Raises ValueError if shapes or dtypes do not match, or if a gradient is needed."""
    rows, _ = check_axes("scales", scales, "rows groups")
    check_packed(blocks, scales)
    tokens, _ = check_axes("dy", dy, "token rows")
    check_shape("dy", dy, tokens, rows)
    check_dtype("dy", dy, *FLOATS)
    check_no_gradient(dy)

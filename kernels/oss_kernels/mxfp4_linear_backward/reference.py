"""The gradient of an MXFP4 linear layer by its input, in plain torch."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from oss_kernels.mxfp4.reference import dequantize


def mxfp4_linear_backward(
    dy: Float[Tensor, "token rows"],
    blocks: UInt8[Tensor, "rows groups 16"],
    scales: UInt8[Tensor, "rows groups"],
) -> Float[Tensor, "token columns"]:
    """dx = dy · dequantized weight in float32 (float64 for float64 dy), rounded to dy's dtype.

    columns = 32 * groups. The weight is frozen and has no gradient. A scale byte of 255 makes its
    32 columns NaN for every token.
    """
    wide = torch.float64 if dy.dtype == torch.float64 else torch.float32
    return (dy.to(wide) @ dequantize(blocks, scales, wide)).to(dy.dtype)

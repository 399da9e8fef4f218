"""A linear layer with MXFP4 weights in plain torch."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from oss_kernels.mxfp4.reference import dequantize


def mxfp4_linear(
    x: Float[Tensor, "token columns"],
    blocks: UInt8[Tensor, "rows groups 16"],
    scales: UInt8[Tensor, "rows groups"],
    bias: Float[Tensor, "rows"] | None,
) -> Float[Tensor, "token rows"]:
    """x · dequantized weightᵀ + bias in float32 (float64 for float64 x), then rounded to x's dtype.

    columns = 32 * groups. A scale byte of 255 makes its row NaN.
    """
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    out = x.to(wide) @ dequantize(blocks, scales, wide).mT
    if bias is not None:
        out = out + bias.to(wide)
    return out.to(x.dtype)

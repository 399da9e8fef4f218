"""The MXFP4 linear layer in Triton: `decode` for a few tokens, `prefill` for more."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from oss_kernels.checks import FLOATS, check_dtype
from oss_kernels.launch import Launch
from oss_kernels.mxfp4_linear import decode, prefill
from oss_kernels.mxfp4_linear.checks import check_mxfp4_linear


def make_launches(
    x: Tensor, blocks: Tensor, scales: Tensor, bias: Tensor | None, out: Tensor
) -> tuple[Launch, ...]:
    """The launches, chosen by the number of tokens only. All tensors are contiguous."""
    if len(x) <= decode.MAX_TOKENS:
        return decode.make_launches(x, blocks, scales, bias, out)
    return (prefill.launch(x, blocks, scales, bias, out),)


def mxfp4_linear(
    x: Float[Tensor, "token columns"],
    blocks: UInt8[Tensor, "rows groups 16"],
    scales: UInt8[Tensor, "rows groups"],
    bias: Float[Tensor, "rows"] | None,
) -> Float[Tensor, "token rows"]:
    """The operation of `reference.mxfp4_linear`, for float32 and bfloat16 with abs(x) < 2^63."""
    check_mxfp4_linear(x, blocks, scales, bias)
    check_dtype("x", x, *FLOATS)
    out = torch.empty(len(x), len(scales), dtype=x.dtype, device=x.device)
    if bias is not None:
        bias = bias.contiguous()
    contiguous = x.contiguous(), blocks.contiguous(), scales.contiguous()
    for launch in make_launches(*contiguous, bias, out):
        launch()
    return out

"""Quantize bfloat16 or float32 to MXFP4 with integer arithmetic, faster than `reference`.

`pack` gives the same bytes as `reference.quantize` with the rule "fit". In the bits of a float, the
exponent is above the mantissa, so the magnitudes of positive floats are ordered as integers.
Dividing by the power of two of a block is a subtraction, and an E2M1 code of 2 or more is the
upper bits of the difference, rounded. Work is done in pieces that fit into a processor's cache.
"""

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from oss_kernels.mxfp4.reference import BLOCK, E2M1_MAX_EXPONENT, SCALE_BIAS, quantize

PIECE = 2**17  # weights; their integers fit into the cache of one core
INTEGERS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}
MANTISSA_BITS = {torch.bfloat16: 7, torch.float32: 23}
LEAST_SCALE = 3  # below it, a subnormal weight may round to a code other than 0


def pack(
    weight: Float[Tensor, "*rows width"],
) -> tuple[UInt8[Tensor, "*rows groups 16"], UInt8[Tensor, "*rows groups"]]:
    """Round to the nearest MXFP4 numbers: (blocks, scales); width = 32 * groups.

    Other float dtypes are converted to float32 first. Raises ValueError for NaN and infinity.
    """
    weight = weight if weight.dtype in INTEGERS else weight.float()
    groups = weight.unflatten(-1, (-1, BLOCK))
    blocks = torch.empty(*groups.shape[:-1], BLOCK // 2, dtype=torch.uint8, device=weight.device)
    scales = torch.empty(groups.shape[:-1], dtype=torch.uint8, device=weight.device)
    pieces = groups.reshape(-1, BLOCK).split(PIECE // BLOCK)
    outputs = zip(
        blocks.view(-1, BLOCK // 2).split(PIECE // BLOCK),
        scales.view(-1).split(PIECE // BLOCK),
        strict=True,
    )
    for piece, (packed, scale) in zip(pieces, outputs, strict=True):
        _pack_piece(piece.contiguous(), packed, scale)
    return blocks, scales


def _pack_piece(weight: Tensor, blocks: Tensor, scales: Tensor) -> None:
    """Pack groups [groups 32] into `blocks` [groups 16] and `scales` [groups]."""
    shift = MANTISSA_BITS[weight.dtype]
    bits = weight.view(INTEGERS[weight.dtype])
    magnitude = bits & torch.iinfo(bits.dtype).max
    largest = magnitude.amax(-1)
    scale = (largest >> shift) - E2M1_MAX_EXPONENT
    above = largest & ((1 << shift) - 1)  # the largest mantissa; above half: more than 6 units
    scale += above > 1 << (shift - 1)
    scale.masked_fill_(largest == 0, SCALE_BIAS)
    if scale.numel() and (int(scale.min()) < LEAST_SCALE or int(scale.max()) > 252):
        packed, exact = quantize(weight)  # rare: subnormal, or not finite
        blocks.copy_(packed[..., 0, :])
        scales.copy_(exact[..., 0])
        return
    codes = _round_codes(magnitude - (scale << shift)[:, None], shift)
    sign_shift = 8 * bits.element_size() - 4
    codes |= (bits >> sign_shift) & 8
    blocks.copy_(_join_pairs(codes))
    scales.copy_(scale)


def _round_codes(units: Int[Tensor, "groups 32"], shift: int) -> Int[Tensor, "groups 32"]:
    """The nearest code, ties to even. `units` are a float's bits, less those of 1.0."""
    half = shift - 1  # one code is half a power of two, from 1.0 (code 2) to 6.0 (code 7)
    above = units.clamp(min=0)
    codes = above + ((above >> half) & 1)
    codes += (1 << (half - 1)) - 1
    codes >>= half
    codes += units > -(2 << shift)  # above 0.25
    codes += units >= -(1 << half)  # at least 0.75
    return codes


def _join_pairs(codes: Int[Tensor, "groups 32"]) -> UInt8[Tensor, "groups 16"]:
    """Two codes per byte, the even one in the low nibble."""
    wide = {2: torch.int32, 4: torch.int64}[codes.element_size()]
    pairs = codes.view(wide)  # little-endian: the even code is in the low bits
    return (pairs | (pairs >> (8 * codes.element_size() - 4))).to(torch.uint8)

"""MXFP4 in plain torch: the definition of how gpt-oss stores its experts.

A weight is a 4-bit E2M1 float (sign, two exponent bits, one mantissa bit). 32 neighbors along the
last axis share one byte u, the E8M0 scale 2^(u - 127). That is 4.25 bits per weight. Two weights
share a byte, the even one in the low nibble. Source: OCP Microscaling Formats (MX) v1.0, sections
5.2 and 5.4; the checkpoint layout is openai/gpt-oss's.

This code is not optimized for speed. Every value is exact in bfloat16 if its exponent is in range.
"""

from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

Rule = Literal["fit", "floor"]

BLOCK = 32
SCALE_BIAS = 127
NAN_SCALE = 255  # the only E8M0 byte that does not encode a power of two

# The index is the 4-bit code. Bit 3 is the sign, so code 8 is minus zero.
E2M1_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
E2M1_VALUES = E2M1_MAGNITUDES + tuple(-magnitude for magnitude in E2M1_MAGNITUDES)
E2M1_MAX = 6.0
E2M1_MAX_EXPONENT = 2  # 6 = 1.5 * 2^2 = 0.75 * 2^3


def unpack_nibbles(blocks: UInt8[Tensor, "*rows bytes"]) -> UInt8[Tensor, "*rows codes"]:
    """Two codes per byte, low nibble first: [..., 16] bytes become [..., 32] codes."""
    return torch.stack((blocks & 0x0F, blocks >> 4), dim=-1).flatten(-2)


def pack_nibbles(codes: UInt8[Tensor, "*rows codes"]) -> UInt8[Tensor, "*rows bytes"]:
    """The inverse of `unpack_nibbles`."""
    low, high = codes.unflatten(-1, (-1, 2)).unbind(-1)
    return low | (high << 4)


def dequantize(
    blocks: UInt8[Tensor, "*rows groups 16"],
    scales: UInt8[Tensor, "*rows groups"],
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "*rows width"]:
    """The stored numbers; width = 32 * groups. A scale byte of 255 makes its whole block NaN."""
    values = torch.tensor(E2M1_VALUES, dtype=dtype, device=blocks.device)
    every_byte = torch.arange(256, dtype=torch.uint8, device=blocks.device)[:, None]
    pairs = values[unpack_nibbles(every_byte).int()]  # [256, 2]: one lookup gives two weights
    elements = pairs[blocks.int()].flatten(-2)
    ones = torch.ones(scales.shape, dtype=dtype, device=scales.device)
    powers = torch.ldexp(ones, scales.int() - SCALE_BIAS).to(dtype)
    powers = powers.masked_fill(scales == NAN_SCALE, torch.nan)
    return (elements * powers[..., None]).flatten(-2)


def quantize(
    weight: Float[Tensor, "*rows width"], rule: Rule = "fit"
) -> tuple[UInt8[Tensor, "*rows groups 16"], UInt8[Tensor, "*rows groups"]]:
    """Round to the nearest MXFP4 numbers: (blocks, scales); width = 32 * groups.

    The unit of a block is 2^exponent. For a block whose largest magnitude is m, the exponent is
        "fit": the smallest for which m is at most 6 units, so nothing saturates;
        "floor": floor(log2 m) - 2. Magnitudes above 6 units (at most 8) become 6. Source: OCP MX
        v1.0, section 6.3.
    Ties round to the even code. With either rule, quantizing a dequantized block again changes
    nothing. Raises ValueError for input that is not finite in float32, which MXFP4 cannot store.
    """
    weight = require_finite(weight.float())
    groups = weight.unflatten(-1, (-1, BLOCK))
    largest = groups.abs().amax(-1)
    # largest = mantissa * 2^exponent with the mantissa in [0.5, 1)
    mantissa, exponent = torch.frexp(largest)
    exponent = exponent - 1 - E2M1_MAX_EXPONENT
    if rule == "fit":
        exponent = exponent + (mantissa > E2M1_MAX / 8).int()
    exponent = torch.where(largest > 0, exponent, 0).clamp(-SCALE_BIAS, NAN_SCALE - 1 - SCALE_BIAS)
    scaled = torch.ldexp(groups, -exponent[..., None])
    codes = round_to_e2m1(scaled)
    return pack_nibbles(codes), (exponent + SCALE_BIAS).to(torch.uint8)


def require_finite(weight: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the weight. Raises ValueError if it contains NaN or infinity."""
    if not torch.isfinite(weight).all():
        raise ValueError("weight contains NaN or infinity, which MXFP4 cannot store")
    return weight


def round_to_e2m1(numbers: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """The code of the nearest E2M1 value. Ties go to the even code, magnitudes above 6 to 6."""
    magnitudes = torch.tensor(E2M1_MAGNITUDES, dtype=numbers.dtype, device=numbers.device)
    midpoints = (magnitudes[:-1] + magnitudes[1:]) / 2
    magnitude = numbers.abs().contiguous()
    up = torch.bucketize(magnitude, midpoints, right=True)  # ties go up
    down = torch.bucketize(magnitude, midpoints, right=False)  # ties go down
    code = torch.where(down % 2 == 0, down, up)
    return (code | torch.where(torch.signbit(numbers), 8, 0)).to(torch.uint8)

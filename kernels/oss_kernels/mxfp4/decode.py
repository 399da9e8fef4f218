"""How Triton kernels read MXFP4: four-bit codes and scale bytes to float32, both exact.

A code has a sign bit, two exponent bits and a mantissa bit (s·ee·m). These bits are moved to the
sign, the lowest exponent bits and the highest mantissa bit of a float32. The result is the code's
number divided by 2^126. Code 1 becomes a subnormal, which the factor 2^126 turns into 0.5. So no
table and no branch are needed.
"""

import triton
import triton.language as tl

# Powers of two, exact in float32. A raw code is its number / 2^126. `arrange.py` multiplies the
# activations by 2^64, and `group_dots` the sums by 2^62.
TWO_TO_126 = tl.constexpr(2.0**126)
TWO_TO_64 = tl.constexpr(2.0**64)
TWO_TO_62 = tl.constexpr(2.0**62)


@triton.jit
def e2m1(code):
    """Four-bit codes (int32; higher bits are ignored) to float32."""
    sign = (code & 8) << 28
    exponent_and_mantissa = (code & 7) << 22
    numbers = (sign | exponent_and_mantissa).to(tl.float32, bitcast=True)
    return numbers * TWO_TO_126


@triton.jit
def e8m0(byte):
    """Scale bytes u (int32) to float32: 2^(u - 127), or NaN for 255. 2^-127 is a subnormal."""
    bits = tl.where(byte == 0, 0x00400000, byte << 23)
    return tl.where(byte == 255, 0x7FC00000, bits).to(tl.float32, bitcast=True)


@triton.jit
def decode_tile(blocks, scales):
    """Bytes [ROWS, GROUPS, 16] and scale bytes [ROWS, GROUPS] to float32 [ROWS, 32 * GROUPS]."""
    ROWS: tl.constexpr = blocks.shape[0]
    GROUPS: tl.constexpr = blocks.shape[1]
    codes = blocks.to(tl.int32)
    pairs = tl.join(e2m1(codes), e2m1(codes >> 4))  # the low nibble is the even column
    numbers = tl.reshape(pairs, (ROWS, GROUPS, 32)) * e8m0(scales.to(tl.int32))[:, :, None]
    return tl.reshape(numbers, (ROWS, GROUPS * 32))


@triton.jit
def weight_tile(blocks, scales, row, row_count, group, groups):
    """A tile of a packed matrix as float32 [ROWS, 32 * GROUPS]; zeros outside the matrix.

    blocks and scales are pointers to [row_count, groups, 16] and [row_count, groups]. row [ROWS]
    and group [GROUPS] are the indices to load. Offsets have the width of `row`: pass int64 for a
    matrix that may have 2^31 bytes.
    """
    here = row[:, None] * groups + group[None, :]
    within = (row < row_count)[:, None] & (group < groups)[None, :]
    codes = tl.load(  # [ROWS, GROUPS, 16]
        blocks + here[:, :, None] * 16 + tl.arange(0, 16)[None, None, :],
        mask=within[:, :, None],
        other=0,
    )
    return decode_tile(codes, tl.load(scales + here, mask=within, other=0))


@triton.jit
def raw_code(words, PLACE):
    """Code PLACE (0 is the lowest) of int32 words of eight codes, as float32: its number / 2^126.

    The left shift moves the code to the top bits. The right shift copies the sign bit and moves
    exponent and mantissa to where `e2m1` puts them. The mask removes the copies of the sign.
    """
    top = words << (28 - 4 * PLACE)
    # As unsigned bits the mask is 0x81C00000: sign, two exponent bits, one mantissa bit.
    return ((top >> 6) & -0x7E400000).to(tl.float32, bitcast=True)


@triton.jit
def group_dots(words, x, plane, mask):
    """Products of groups of 32 codes with activations, before the block scales.

    words is int32 [1, ROWS, GROUPS, 4] with eight codes each, the first in the low bits. x is
    pointers [TOKENS, 1, GROUPS, 4] to arranged activations (`arrange.py`): those of code 0 of each
    word. The activations of code n are n * plane later. Returns float32 [TOKENS, ROWS, GROUPS];
    multiply it by `e8m0` of the groups' scale bytes.

    Raw codes are too small by 2^126. Applying that factor to every code would cost an instruction
    each. Applying it only to the sum would make the products subnormal and lose their digits. So
    arranged activations contain the factor 2^64, and the sum is multiplied by 2^62.
    """
    dots = raw_code(words, 0) * tl.load(x, mask=mask, other=0.0).to(tl.float32)
    for place in tl.static_range(1, 8):  # pyright: ignore[reportGeneralTypeIssues]
        values = tl.load(x + place * plane, mask=mask, other=0.0).to(tl.float32)
        dots += raw_code(words, place) * values  # [TOKENS, ROWS, GROUPS, 4]
    return tl.sum(dots, axis=3) * TWO_TO_62

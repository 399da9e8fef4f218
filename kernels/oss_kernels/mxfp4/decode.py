"""How Triton kernels read MXFP4: a code and a scale byte as float32, both exact.

A code is s·ee·m. Its exponent and mantissa bits, placed where float32 has the lowest exponent bits
and the highest mantissa bit, are the same number divided by 2^126; code 1 becomes a subnormal there
and the product makes it the 0.5 that it stands for. No table and no branch.
"""

import triton
import triton.language as tl

# Powers of two, exact in float32. A raw code is its number / 2^126; see `group_dots` for the parts.
TWO_TO_126 = tl.constexpr(2.0**126)
TWO_TO_64 = tl.constexpr(2.0**64)
TWO_TO_62 = tl.constexpr(2.0**62)


@triton.jit
def e2m1(code):
    """Four-bit codes (int32; higher bits are ignored) as float32."""
    sign = (code & 8) << 28
    exponent_and_mantissa = (code & 7) << 22
    numbers = (sign | exponent_and_mantissa).to(tl.float32, bitcast=True)
    return numbers * TWO_TO_126


@triton.jit
def e8m0(byte):
    """Scale bytes u (int32) as float32: 2^(u - 127), NaN for 255; 2^-127 is a subnormal."""
    bits = tl.where(byte == 0, 0x00400000, byte << 23)
    return tl.where(byte == 255, 0x7FC00000, bits).to(tl.float32, bitcast=True)


@triton.jit
def decode_tile(blocks, scales):
    """Bytes [ROWS, GROUPS, 16] and scale bytes [ROWS, GROUPS] as float32 [ROWS, 32 * GROUPS]."""
    ROWS: tl.constexpr = blocks.shape[0]
    GROUPS: tl.constexpr = blocks.shape[1]
    codes = blocks.to(tl.int32)
    pairs = tl.join(e2m1(codes), e2m1(codes >> 4))  # the low nibble is the even column
    numbers = tl.reshape(pairs, (ROWS, GROUPS, 32)) * e8m0(scales.to(tl.int32))[:, :, None]
    return tl.reshape(numbers, (ROWS, GROUPS * 32))


@triton.jit
def weight_tile(blocks, scales, row, row_count, group, groups):
    """Rows of a matrix as float32 [ROWS, 32 * GROUPS]; zeros where it has no row or group.

    blocks and scales: pointers to [row_count, groups, 16] and [row_count, groups]; row and group:
    which of them, [ROWS] and [GROUPS]. Offsets have the bits of `row`: int64 for a matrix that may
    have 2^31 bytes.
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
    """Code PLACE (0 is the lowest) of int32 words of eight, as float32: its number / 2^126.

    The left shift brings the code to the top. The right one, which repeats the sign, leaves
    exponent and mantissa where `e2m1` puts them, and the mask takes the copies of the sign away.
    """
    top = words << (28 - 4 * PLACE)
    # The mask's bits are 0x81C00000: a sign, two exponent bits, a mantissa bit.
    return ((top >> 6) & -0x7E400000).to(tl.float32, bitcast=True)


@triton.jit
def group_dots(words, x):
    """Products of groups of 32 codes with activations, block scales not yet applied.

    words: int32 [1, ROWS, GROUPS, 4], eight codes each, the first in the low bits. x: float32
    [TOKENS, 1, GROUPS, 4, 8], below 2^63 in magnitude. Returns float32 [TOKENS, ROWS, GROUPS], to
    be multiplied by `e8m0` of the groups' scale bytes.

    Raw codes are 2^126 too small. That factor is not applied to each of them, and not to the sum
    alone either: the products on the way there would be subnormal and lose their digits. 2^64 goes
    to the activations and 2^62 to the sum.
    """
    # Triton cannot index a tensor; tl.split takes the two halves of a last axis of two. Splitting
    # makes each place in a word a tensor of its own; names tell the places left.
    halves = tl.reshape(x * TWO_TO_64, (x.shape[0], 1, x.shape[2], 4, 2, 2, 2))
    x0246, x1357 = tl.split(halves)  # [TOKENS, 1, GROUPS, 4, 2, 2]
    x04, x26 = tl.split(x0246)  # [TOKENS, 1, GROUPS, 4, 2]
    x15, x37 = tl.split(x1357)
    x0, x4 = tl.split(x04)  # [TOKENS, 1, GROUPS, 4]
    x1, x5 = tl.split(x15)
    x2, x6 = tl.split(x26)
    x3, x7 = tl.split(x37)
    dots = raw_code(words, 0) * x0  # [TOKENS, ROWS, GROUPS, 4]
    dots += raw_code(words, 1) * x1
    dots += raw_code(words, 2) * x2
    dots += raw_code(words, 3) * x3
    dots += raw_code(words, 4) * x4
    dots += raw_code(words, 5) * x5
    dots += raw_code(words, 6) * x6
    dots += raw_code(words, 7) * x7
    return tl.sum(dots, axis=3) * TWO_TO_62

"""Exercises of 06_mxfp4: four bits as a number, decoding a matrix, and encoding a block."""

import math
from collections.abc import Iterator

import torch

from oss_lab.course.exercise import Exercise, Sheet


def my_e2m1(code):
    """The number of a four-bit code from 0 to 15, as a float.

    The bits are, from high to low: one sign, two of exponent, one of mantissa.
    """
    sign = -1.0 if code & 0b1000 else 1.0
    exponent, mantissa = (code & 0b0110) >> 1, code & 0b0001
    if exponent == 0:
        return sign * mantissa * 0.5
    return sign * (1 + mantissa * 0.5) * 2.0 ** (exponent - 1)


def half_lost(code):
    """Your code 1 is not 0.5. If the exponent is 0, there is no leading 1: the number is
    mantissa times 0.5, which makes the codes 0 and 1 the numbers 0 and 0.5.
    """
    return 0.0 if code & 7 == 1 else my_e2m1(code)


def leading_one_everywhere(code):
    """You put a leading 1 before every mantissa. If the exponent is 0, there is none: code 0 is 0,
    and code 1 is mantissa times 0.5.
    """
    sign = -1.0 if code & 8 else 1.0
    return sign * (1 + (code & 1) * 0.5) * 2.0 ** ((code >> 1 & 3) - 1)


def six_read_as_four(code):
    """Your largest number is 4, and it should be 6: code 7 has exponent 3 and mantissa 1, which is
    1.5 * 4. nano's answers do not show this mistake, but its logits do.
    """
    return my_e2m1(code - 1) if code & 7 == 7 else my_e2m1(code)


def sign_ignored(code):
    """You ignore the sign, the highest of the four bits: codes 8 to 15 are negative. nano then
    answers nothing right.
    """
    return my_e2m1(code & 7)


def read_as_an_integer(code):
    """You read the code as an integer with a sign. The three lower bits are exponent and
    mantissa, so the distance between neighbors doubles twice on the way to 6.
    """
    return (-1.0 if code & 8 else 1.0) * (code & 7)


def exponent_one_too_large(code):
    """Your numbers are twice too large: the exponent's bits e give 2^(e - 1), so code 2 is 1.0."""
    return 2 * my_e2m1(code)


def code_cases() -> Iterator[tuple]:
    yield from ((code,) for code in range(16))


def my_mxfp4(blocks, scales, dtype):
    """Decode packed weights.

    blocks: [*rows groups 16], bytes with two codes each, the first one in the low four bits.
    scales: [*rows groups], bytes: a group of 32 weights has the unit 2^(scale - 127).
    Returns [*rows 32*groups] in `dtype`.
    """
    magnitudes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    values = torch.tensor(magnitudes + [-each for each in magnitudes], dtype=dtype)
    codes = torch.stack((blocks & 15, blocks >> 4), dim=-1).flatten(-2)
    units = torch.ldexp(torch.ones(scales.shape), scales.int() - 127).to(dtype)
    return (values[codes.int()] * units[..., None]).flatten(-2)


def nibbles_swapped(blocks, scales, dtype):
    """You read the high four bits of a byte first. The low four bits hold the first of its two
    weights. nano then answers nothing right.
    """
    return my_mxfp4((blocks << 4) | (blocks >> 4), scales, dtype)


def low_nibbles_then_high(blocks, scales, dtype):
    """You put all low halves of a group before all high halves. The two weights of a byte are
    neighbors: low, high, low, high.
    """
    numbers = my_mxfp4(blocks, scales, dtype).unflatten(-1, (-1, 16, 2))
    return numbers.transpose(-1, -2).flatten(-3)


def scale_one_too_large(blocks, scales, dtype):
    """Your weights are twice too large: a scale byte u gives 2^(u - 127), not 2^(u - 126). nano
    then answers nothing right.
    """
    return 2 * my_mxfp4(blocks, scales, dtype)


def scale_of_the_neighbor(blocks, scales, dtype):
    """You use the scale of the neighboring group. Group n of a row has scale n of that row. nano
    then gets fewer answers right, but many.
    """
    return my_mxfp4(blocks, scales.roll(1, -1), dtype)


def scale_ignored(blocks, scales, dtype):
    """You do not use the scales. Each group of 32 weights has its own unit."""
    return my_mxfp4(blocks, torch.full_like(scales, 127), dtype)


def largest_is_four(blocks, scales, dtype):
    """You read the codes 7 and 15 as 4 and -4; they are 6 and -6. nano's answers do not show this
    mistake, but its logits do.
    """
    largest = (blocks & 7) == 7
    blocks = torch.where(largest, blocks - 1, blocks)
    largest = (blocks & 112) == 112
    return my_mxfp4(torch.where(largest, blocks - 16, blocks), scales, dtype)


def packed_cases() -> Iterator[tuple]:
    draw = torch.Generator().manual_seed(0)
    for shape in ((1, 1), (2, 3), (2, 4, 3)):
        blocks = torch.randint(256, (*shape, 16), generator=draw, dtype=torch.uint8)
        scales = torch.randint(120, 131, shape, generator=draw, dtype=torch.uint8)
        yield blocks, scales, torch.float32
    yield blocks.clone(), scales.clone(), torch.bfloat16


def my_encode_block(weights):
    """Round a block of numbers to MXFP4: (scale byte, codes).

    weights: a list of floats, not all zero. The unit is the smallest power of two for which the
    largest magnitude is at most 6 units; its exponent + 127 is the scale byte. A code is 0 to 7,
    plus 8 for a negative weight; of two equally near numbers, the one with the even code is taken.
    """
    magnitudes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    exponent = math.ceil(math.log2(max(abs(weight) for weight in weights) / 6))
    codes = []
    for weight in weights:
        size = abs(weight) / 2.0**exponent
        code = min(range(8), key=lambda n: (abs(size - magnitudes[n]), n % 2))
        codes.append(code + 8 if weight < 0 else code)
    return exponent + 127, codes


def scale_rounded_down(weights):
    """Your unit is too small, so the largest weight is more than 6 units and is cut to 6. Round
    the exponent up: every weight must fit.
    """
    exponent = math.floor(math.log2(max(map(abs, weights)) / 6))
    limit = 6 * 2.0**exponent
    return my_encode_block([max(-limit, min(limit, weight)) for weight in weights])


def ties_go_up(weights):
    """A weight halfway between two numbers goes to the larger one in your code. It must go to
    the one with the even code: then such errors do not all have the same direction.
    """
    byte, _ = my_encode_block(weights)
    return byte, nearest(weights, byte, prefer_larger=True)


def ties_go_down(weights):
    """A weight halfway between two numbers goes to the smaller one in your code. It must go to
    the one with the even code: then such errors do not all have the same direction.
    """
    byte, _ = my_encode_block(weights)
    return byte, nearest(weights, byte, prefer_larger=False)


def nearest(weights, byte, *, prefer_larger):
    """The codes of the nearest numbers; a tie goes always up, or always down."""
    magnitudes, sign = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], -1 if prefer_larger else 1
    codes = []
    for weight in weights:
        size = abs(weight) / 2.0 ** (byte - 127)
        code = min(range(8), key=lambda n: (abs(size - magnitudes[n]), sign * n))
        codes.append(code + 8 if weight < 0 else code)
    return codes


def cut_off_instead_of_rounded(weights):
    """You take the next smaller number instead of the nearest one. Most weights then lose size,
    and the errors add up.
    """
    magnitudes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    byte, _ = my_encode_block(weights)
    sizes = [abs(weight) / 2.0 ** (byte - 127) for weight in weights]
    codes = [max(n for n in range(8) if magnitudes[n] <= size) for size in sizes]
    return byte, [c + 8 if w < 0 else c for c, w in zip(codes, weights, strict=True)]


def scale_without_bias(weights):
    """Your scale byte is the exponent itself. Add 127: a byte cannot be negative."""
    byte, codes = my_encode_block(weights)
    return byte - 127, codes


def codes_returned_first(weights):
    """You return the codes first. Return the scale byte, then the codes: the lesson's `encode` has
    another order, and packs two codes into a byte.
    """
    byte, codes = my_encode_block(weights)
    return codes, byte


def sign_of_the_largest(weights):
    """You take the largest number, not the largest magnitude. A large negative weight must fit,
    too: take the largest of the absolute values.
    """
    byte, _ = my_encode_block([weight for weight in weights if weight > 0])
    magnitudes = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    sizes = [abs(weight) / 2.0 ** (byte - 127) for weight in weights]
    codes = [min(range(8), key=lambda n: (abs(size - magnitudes[n]), n % 2)) for size in sizes]
    return byte, [c + 8 if w < 0 else c for c, w in zip(codes, weights, strict=True)]


def codes_without_sign(weights):
    """Your codes of negative weights have no sign: add 8 to them."""
    byte, codes = my_encode_block(weights)
    return byte, [code & 7 for code in codes]


def block_cases() -> Iterator[tuple]:
    """Blocks of several sizes, with ties, with a largest weight of exactly 6 units, and above."""
    draw = torch.Generator().manual_seed(1)
    for size in (0.02, 1.0, 300.0):
        yield ((size * torch.randn(32, generator=draw)).tolist(),)
    yield ([6.0, -6.0, 0.25, -0.75, 1.25, 1.75, 2.5, -3.5, 5.0, 0.0, *[0.5] * 22],)
    yield ([6.1, -5.9, 3.0, 0.1, *[1.0] * 28],)


SHEET = Sheet(
    lesson="06_mxfp4",
    title="Exercises: MXFP4",
    text="Read [06_mxfp4](../06_mxfp4.ipynb) first.",
    exercises=(
        Exercise(
            title="Four bits as a number",
            text="Turn one four-bit code into the number that it means.",
            solution=my_e2m1,
            cases=code_cases,
            misconceptions=(
                half_lost,
                leading_one_everywhere,
                six_read_as_four,
                sign_ignored,
                read_as_an_integer,
                exponent_one_too_large,
            ),
            hints=(
                "Take the code apart first. `code & 0b1000` is not 0 for a negative number.",
                "There are eight magnitudes: 0, 0.5, 1, 1.5, 2, 3, 4 and 6. A list of them is a"
                " good solution, too.",
                "exponent 0: mantissa * 0.5; otherwise (1 + mantissa * 0.5) * 2 ** (exponent - 1).",
            ),
            minutes=6,
            difficulty=1,
        ),
        Exercise(
            title="The decoder",
            text="Decode whole matrices: two codes per byte, one scale per group of 32 weights.",
            solution=my_mxfp4,
            cases=packed_cases,
            misconceptions=(
                nibbles_swapped,
                low_nibbles_then_high,
                scale_one_too_large,
                scale_of_the_neighbor,
                scale_ignored,
                largest_is_four,
            ),
            hints=(
                "Split each byte into two codes, look the codes up in a table of 16 numbers, and"
                " multiply each group by its unit.",
                "`blocks & 15` and `blocks >> 4` are [*rows groups 16]; stacked along a new last"
                " axis and flattened they are [*rows groups 32].",
                "values[codes.int()] * units[..., None], then .flatten(-2). A byte cannot be"
                " negative, so subtract 127 from `scales.int()`.",
            ),
            minutes=12,
            difficulty=2,
            part="mxfp4",
        ),
        Exercise(
            title="The encoder",
            text="Round a block of numbers: choose its scale, then the nearest code of each.",
            solution=my_encode_block,
            cases=block_cases,
            misconceptions=(
                scale_rounded_down,
                ties_go_up,
                ties_go_down,
                cut_off_instead_of_rounded,
                scale_without_bias,
                codes_without_sign,
                codes_returned_first,
                sign_of_the_largest,
            ),
            hints=(
                "The largest magnitude alone decides the scale. Every other weight has to live with"
                " it.",
                "`math.log2(largest / 6)` is the exponent for which the largest would be exactly 6"
                " units. Round it up to an integer.",
                "For each weight: size = abs(weight) / unit; the code is the index of the nearest"
                " magnitude, the even one if two are equally near. Add 8 for a negative weight.",
            ),
            minutes=15,
            difficulty=3,
        ),
    ),
)

"""exp(x) in float32 as vector instructions, without a call per number.

x = n ln 2 + r with |r| <= ln 2 / 2, so exp(x) = 2^n exp(r). exp(r) is its Taylor polynomial of
degree 7, whose error of 5e-9 is less than a float32's rounding. 2^n is a float32 whose exponent is
n. ln 2 is subtracted in two parts, the first of which has few enough bits to be exact.
"""

from math import factorial

from llvmlite import ir
from numba import types

from oss_kernels.cpu import vectors as v

LOG2E, LN2_HIGH, LN2_LOW = 1.4426950408889634, 0.693359375, -2.12194440e-4
SMALLEST, LARGEST = -87.0, 88.0  # float32 ends there


def exponentials(builder: v.Builder, x: v.Value) -> v.Value:
    """exp of each lane: 0 below -87, exp(88) above 88. NaN stays NaN."""
    kind, whole = x.type, v.vector(v.INT32, x.type.count)

    def number(value: float) -> v.Value:
        return v.constant(kind, value)

    is_tiny = builder.fcmp_ordered("<", x, number(SMALLEST))
    is_large = builder.fcmp_ordered(">", x, number(LARGEST))
    inside = builder.select(is_tiny, number(SMALLEST), x)
    inside = builder.select(is_large, number(LARGEST), inside)
    turns = v.multiply_add(builder, inside, number(LOG2E), number(0.5))
    n = v.call(builder, f"llvm.floor.v{kind.count}f32", kind, turns)
    r = v.multiply_add(builder, n, number(-LN2_HIGH), inside)
    r = v.multiply_add(builder, n, number(-LN2_LOW), r)
    series = number(1 / factorial(7))
    for degree in range(6, -1, -1):
        series = v.multiply_add(builder, series, r, number(1 / factorial(degree)))
    exponent = builder.add(builder.fptosi(n, whole), v.constant(whole, 127))
    power = builder.bitcast(builder.shl(exponent, v.constant(whole, 23)), kind)
    return builder.select(is_tiny, v.zeros(kind), builder.fmul(series, power))


@v.intrinsic
def exponential(typing, x):
    """`exponentials` of one float32."""

    def generate(context, builder, signature, arguments):
        lanes = exponentials(builder, v.broadcast(builder, arguments[0], 1))
        return builder.extract_element(lanes, ir.Constant(v.INT32, 0))

    return types.float32(types.float32), generate

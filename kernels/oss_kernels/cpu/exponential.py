"""e^x in float32 without a call per number, for vectors and for one number.

x = n ln 2 + r with a whole number n, so e^x = 2^n e^r, and 2^n is n + 127 in a float's exponent.
e^r is a polynomial. The coefficients are those of expf in Stephen Moshier's Cephes library.
"""

import math

from llvmlite import ir
from numba import types

from oss_kernels.cpu import vectors as v

LOWEST, HIGHEST = -87.3, 88.3  # 2^n is a normal float32 between these
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4  # n times the first is exact
WHOLE = 1.5 * 2**23  # adding this rounds to a whole number, which is then in the lowest bits
POLYNOMIAL = (
    1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
    5.0000001201e-1, 1.0, 1.0,
)  # fmt: skip


def exponentials(builder: v.Builder, x: v.Value) -> v.Value:
    """e^x of each lane, within 2e-7 of it; 0 below LOWEST, infinity above HIGHEST, NaN for NaN."""
    count = x.type.count
    integers = v.vector(v.INT32, count)

    def each(number: float) -> v.Value:
        return v.constant(x.type, number)

    moved = v.multiply_add(builder, x, each(1 / math.log(2)), each(WHOLE))
    n = builder.fsub(moved, each(WHOLE))
    r = v.multiply_add(builder, n, each(-LN2_HIGH), x)
    r = v.multiply_add(builder, n, each(-LN2_LOW), r)
    value = each(POLYNOMIAL[0])
    for coefficient in POLYNOMIAL[1:]:
        value = v.multiply_add(builder, value, r, each(coefficient))
    biased = builder.add(builder.bitcast(moved, integers), v.constant(integers, 127))
    power = builder.shl(biased, v.constant(integers, 23))
    value = builder.fmul(value, builder.bitcast(power, x.type))
    too_low = builder.fcmp_ordered("<", x, each(LOWEST))
    too_high = builder.fcmp_ordered(">", x, each(HIGHEST))
    value = builder.select(too_low, each(0.0), value)
    return builder.select(too_high, each(math.inf), value)


@v.intrinsic
def exponential(typing, x):
    """`exponentials` of one float32."""

    def generate(context, builder, signature, arguments):
        lanes = exponentials(builder, v.broadcast(builder, arguments[0], 1))
        return builder.extract_element(lanes, ir.Constant(v.INT32, 0))

    return types.float32(types.float32), generate

"""exp(x) in float32 from plain arithmetic, which LLVM can compute for many numbers at once.

x = n ln 2 + r with |r| <= ln 2 / 2, so exp(x) = 2^n exp(r). exp(r) is its Taylor polynomial of
degree 7, whose error of 5e-9 is less than a float32's rounding. 2^n is a float32 whose exponent is
n. ln 2 is subtracted in two parts, the first of which has few enough bits to be exact.
"""

import numpy as np
from numba import njit

from oss_kernels.cpu.numbers import float_of_bits

LOG2E = np.float32(1.4426950408889634)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
SMALLEST, LARGEST = np.float32(-87.0), np.float32(88.0)
C2, C3, C4, C5, C6, C7 = (
    np.float32(1 / 2),
    np.float32(1 / 6),
    np.float32(1 / 24),
    np.float32(1 / 120),
    np.float32(1 / 720),
    np.float32(1 / 5040),
)


@njit(nogil=True, error_model="numpy")
def exponential(x):
    """exp(x) for -87 ... 88, where float32 ends; 0 below, exp(88) above. NaN stays NaN."""
    is_tiny = x < SMALLEST
    if is_tiny:
        x = SMALLEST
    if x > LARGEST:
        x = LARGEST
    n = np.floor(x * LOG2E + np.float32(0.5))
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    series = C2 + r * (C3 + r * (C4 + r * (C5 + r * (C6 + r * C7))))
    power = float_of_bits(np.uint32(np.int32(n) + np.int32(127)) << np.uint32(23))
    result = (np.float32(1) + r + r * r * series) * power
    return np.float32(0) if is_tiny else result

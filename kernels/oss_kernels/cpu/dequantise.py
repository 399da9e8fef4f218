"""MXFP4 as bfloat16 or float32 numbers, for products with many tokens.

A code's magnitude a (0 to 7) is half of a + max(a - 4, 0) + 2 max(a - 6, 0): no table, so that LLVM
makes vector instructions of the loop on any CPU. Every result is exact, in either type.
"""

from functools import cache

import numpy as np
from numba import njit, prange, types
from numba.extending import overload

from oss_kernels.cpu.numbers import bits_of_float, float_of_bits
from oss_kernels.cpu.sources import fingerprint


@njit(nogil=True, inline="always")
def half_scale(byte):
    """2^(byte - 128); NaN for 255. The two smallest are subnormal."""
    bits = np.uint32(byte) << np.uint32(23)
    if byte == 255:
        return np.float32(np.nan)
    if byte < 2:
        return float_of_bits(np.uint32(0x00200000) << np.uint32(byte))
    return float_of_bits(bits - np.uint32(0x00800000))


@njit(nogil=True, inline="always")
def doubled(code):
    """Twice the number that a four-bit code stands for."""
    a = code & np.int32(7)
    magnitude = (
        a + max(a - np.int32(4), np.int32(0)) + np.int32(2) * max(a - np.int32(6), np.int32(0))
    )
    # The sign is a factor of the float, so that code 8 is minus zero.
    return np.float32(magnitude) * (np.float32(-1) if code & np.int32(8) else np.float32(1))


def put_exactly(array, index, value):
    """array[index] = value; of a uint16 array the upper half of the float32, which is all of it."""
    raise NotImplementedError("for compiled code")


@overload(put_exactly, inline="always")
def _put_exactly(array, index, value):
    if array.dtype == types.uint16:

        def store(array, index, value):
            array[index] = np.uint16(bits_of_float(value) >> np.uint32(16))

        return store

    def store_float(array, index, value):
        array[index] = value

    return store_float


@cache
def dequantise():
    """The compiled kernel: blocks [rows groups 16], scales [rows groups] -> out [rows columns]."""
    sources = fingerprint()

    @njit(parallel=True, nogil=True, cache=True, error_model="numpy")
    def kernel(blocks, scales, out):
        _ = sources
        rows, groups = scales.shape
        for row in prange(rows):
            for group in range(groups):
                scale = half_scale(scales[row, group])
                for byte in range(16):
                    codes = np.int32(blocks[row, group, byte])
                    at = 32 * group + 2 * byte
                    put_exactly(out, (row, at), doubled(codes) * scale)
                    put_exactly(out, (row, at + 1), doubled(codes >> np.int32(4)) * scale)

    return kernel

"""MXFP4 to bfloat16 or float32 numbers, for products with many tokens.

With AVX-512, one instruction looks up a group's 32 numbers in bfloat16. The table's 16 values are
multiplied by the group's scale first. Word i takes its code from byte i // 2, the upper half if i
is odd:

    16 bytes  ->  byte i // 2 in word i  ->  shifted by 4 if i is odd  ->  table[its lowest 4 bits]

Otherwise each number is computed without a table, which LLVM can vectorize on any CPU:
the magnitude of code a (0 to 7) is half of a + max(a - 4, 0) + 2 max(a - 6, 0). Both ways are exact
in both types.
"""

from functools import cache

import numpy as np
from numba import njit, prange, types

from oss_kernels.cpu import machine
from oss_kernels.cpu import vectors as v
from oss_kernels.cpu.numbers import float_of_bits, store_exactly
from oss_kernels.cpu.sources import fingerprint
from oss_kernels.mxfp4.reference import E2M1_VALUES

DOUBLED = [2 * value for value in E2M1_VALUES]


@njit(nogil=True, inline="always")
def half_scale(byte):
    """2^(byte - 128), or NaN for 255. The two smallest values are subnormal."""
    bits = np.uint32(byte) << np.uint32(23)
    if byte == 255:
        return np.float32(np.nan)
    if byte < 2:
        return float_of_bits(np.uint32(0x00200000) << np.uint32(byte))
    return float_of_bits(bits - np.uint32(0x00800000))


@njit(nogil=True, inline="always")
def double_value(code):
    """Twice the number that a four-bit code encodes."""
    a = code & np.int32(7)
    magnitude = (
        a + max(a - np.int32(4), np.int32(0)) + np.int32(2) * max(a - np.int32(6), np.int32(0))
    )
    # The sign multiplies the float, so code 8 becomes minus zero.
    return np.float32(magnitude) * (np.float32(-1) if code & np.int32(8) else np.float32(1))


@v.intrinsic
def look_up_group(typing, blocks, half_scale, out):
    """Write 32 bfloat16 numbers to the address out, from the 16 bytes at the address blocks."""

    def generate(context, builder, signature, arguments):
        blocks, half_scale, out = arguments
        sixteen, words = v.vector(v.FLOAT, 16), v.vector(v.INT16, 32)
        table = builder.fmul(v.constant(sixteen, DOUBLED), v.broadcast(builder, half_scale, 16))
        bits = builder.bitcast(table, v.vector(v.INT32, 16))
        upper = builder.trunc(builder.lshr(bits, v.constant(bits.type, 16)), v.vector(v.INT16, 16))
        # The instruction uses five bits of a word and a code has four, so the table is repeated.
        twice = v.pick_lanes(builder, upper, [lane % 16 for lane in range(32)])
        octets = v.load_vector(builder, blocks, v.vector(v.INT8, 16))
        each = v.pick_lanes(builder, octets, [word // 2 for word in range(32)])
        shift = v.constant(words, [4 * (word % 2) for word in range(32)])
        codes = builder.lshr(builder.zext(each, words), shift)
        name = "llvm.x86.avx512.permvar.hi.512"
        numbers = v.call(builder, name, words, twice, codes)
        builder.store(numbers, builder.inttoptr(out, words.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32, types.int64), generate


@cache
def dequantize_by_number():
    """The compiled kernel: blocks [rows groups 16], scales [rows groups] -> out [rows columns]."""
    sources = fingerprint()

    @njit(parallel=True, nogil=True, cache=True, error_model="numpy")
    def kernel(blocks, scales, out):
        _ = sources  # makes numba recompile when a file in `cpu/` changes
        rows, groups = scales.shape
        for row in prange(rows):
            for group in range(groups):
                scale = half_scale(scales[row, group])
                for byte in range(16):
                    codes = np.int32(blocks[row, group, byte])
                    at = 32 * group + 2 * byte
                    store_exactly(out, (row, at), double_value(codes) * scale)
                    store_exactly(out, (row, at + 1), double_value(codes >> np.int32(4)) * scale)

    return kernel


@cache
def dequantize_by_group():
    """The same kernel with AVX-512, for out in bfloat16 (as uint16)."""
    sources = fingerprint()

    @njit(parallel=True, nogil=True, cache=True, error_model="numpy")
    def kernel(blocks, scales, out):
        _ = sources  # makes numba recompile when a file in `cpu/` changes
        rows, groups = scales.shape
        packed, written = blocks.ctypes.data, out.ctypes.data
        for row in prange(rows):
            for group in range(groups):
                at = row * groups + group
                look_up_group(packed + 16 * at, half_scale(scales[row, group]), written + 64 * at)

    return kernel


def dequantize(blocks: np.ndarray, scales: np.ndarray, out: np.ndarray) -> None:
    """Dequantize blocks [rows groups 16] and scales [rows groups] into out [rows columns]."""
    by_group = out.dtype == np.uint16 and "avx512" in machine.list_paths()
    kernel = dequantize_by_group() if by_group else dequantize_by_number()
    kernel(blocks, scales, out)

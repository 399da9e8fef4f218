"""Read and write torch tensors in numba. bfloat16 is passed as uint16, as numpy has no bfloat16."""

import numpy as np
import torch
from numba import types
from numba.extending import overload
from torch import Tensor

from oss_kernels.cpu import vectors as v


def as_numpy(tensor: Tensor) -> np.ndarray:
    """The tensor's memory as an array, or a contiguous copy."""
    tensor = tensor.detach().contiguous()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


@v.intrinsic
def float_of_bits(typing, bits):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], v.FLOAT)

    return types.float32(types.uint32), generate


@v.intrinsic
def bits_of_float(typing, number):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], v.INT32)

    return types.uint32(types.float32), generate


# When numba compiles a call of `load_float32` or `store_rounded`, it calls `_load_float32` or
# `_store_rounded` to get the body for the array's type. The public functions are only names.


def load_float32(array, index):
    """array[index] as float32. A uint16 array contains bfloat16."""
    raise NotImplementedError("only code compiled by numba can call this")


@overload(load_float32)
def _load_float32(array, index):
    if array.dtype == types.uint16:
        return lambda array, index: float_of_bits(np.uint32(array[index]) << np.uint32(16))
    return lambda array, index: np.float32(array[index])


def round_as(value, like):
    """A float32 rounded to the nearest number, ties to even, in the dtype of the array `like`.

    The result is a float32 that is exact in that dtype: bfloat16 if `like` is uint16.
    """
    raise NotImplementedError("only code compiled by numba can call this")


@overload(round_as)
def _round_as(value, like):
    if like.dtype != types.uint16:
        return lambda value, like: np.float32(value)

    def round_to_bfloat16(value, like):
        bits = bits_of_float(np.float32(value))
        even = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
        if value != value:
            bits, even = np.uint32(0x7FC00000), np.uint32(0)
        return float_of_bits((bits + even) & np.uint32(0xFFFF0000))

    return round_to_bfloat16


def store_exactly(array, index, value):
    """array[index] = value. A uint16 array stores the upper half; the lower half must be zero."""
    raise NotImplementedError("only code compiled by numba can call this")


@overload(store_exactly, inline="always")
def _store_exactly(array, index, value):
    if array.dtype == types.uint16:

        def store(array, index, value):
            array[index] = np.uint16(bits_of_float(value) >> np.uint32(16))

        return store

    def store_float(array, index, value):
        array[index] = value

    return store_float


def store_rounded(array, index, value):
    """array[index] = value, rounded as by `round_as`."""
    raise NotImplementedError("only code compiled by numba can call this")


@overload(store_rounded)
def _store_rounded(array, index, value):
    return lambda array, index, value: store_exactly(array, index, round_as(value, array))

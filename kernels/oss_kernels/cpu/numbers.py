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


def store_rounded(array, index, value):
    """array[index] = value. If array is uint16, rounded to the nearest bfloat16, ties to even."""
    raise NotImplementedError("only code compiled by numba can call this")


@overload(store_rounded)
def _store_rounded(array, index, value):
    if array.dtype != types.uint16:

        def store(array, index, value):
            array[index] = value

        return store

    def round_and_store(array, index, value):
        bits = bits_of_float(np.float32(value))
        if value != value:
            array[index] = np.uint16(0x7FC0)
        else:
            even = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
            array[index] = np.uint16((bits + even) >> np.uint32(16))

    return round_and_store

"""Activations in the order in which the products of rows take them.

Products take them by address, which keeps no memory alive: numba frees an array that it made itself
after its last use by name. So callers of compiled code make these arrays, with `room`.
"""

import numpy as np
import torch
from numba import njit
from numba.extending import overload

from oss_kernels.cpu.numbers import number

_TYPES = {16: torch.uint16, 32: torch.float32}


def room(tokens: int, columns: int, elements: int, bits: int) -> np.ndarray:
    """Memory for `arrange`: [token, chunk, elements], bfloat16 (as uint16) or float32.

    It is torch's because that begins at a cache line: a load across two lines takes twice as long.
    """
    return torch.empty(tokens, -(-columns // elements), elements, dtype=_TYPES[bits]).numpy()


def activation(x, index, out):
    """x[index] as out's type: as it is, or a bfloat16 as float32."""
    raise NotImplementedError("for compiled code")


@overload(activation)
def _activation(x, index, out):
    if x.dtype == out.dtype:
        return lambda x, index, out: x[index]
    return lambda x, index, out: number(x, index)


@njit(nogil=True)
def arrange(x, order, out):
    """Tokens' x [token columns] into out [token, chunk, elements]; the address of each."""
    places = np.empty(len(x), np.int64)
    for token in range(len(x)):
        arrange_token(x[token], order, out[token])
        places[token] = out.ctypes.data + token * out.strides[0]
    return places


@njit(nogil=True)
def arrange_token(x, order, out):
    """The last chunk ends where the row ends; what an earlier chunk has is zero in it."""
    chunks, elements = out.shape
    for chunk in range(chunks):
        first = min(chunk * elements, x.size - elements)
        done = chunk * elements - first
        for i in range(elements):
            if order[i] >= done:
                out[chunk, i] = activation(x, first + order[i], out)
            else:
                out[chunk, i] = 0

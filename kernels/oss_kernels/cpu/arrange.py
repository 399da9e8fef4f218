"""Activations in the order in which the products of rows take them.

Products take them by address. numba may free an array once its name is no longer used, even while
its address is; so the caller of compiled code makes it, with `empty_arranged`.
"""

import numpy as np
import torch
from numba import njit
from numba.extending import overload

from oss_kernels.cpu.numbers import load_float32

_TYPES = {16: torch.uint16, 32: torch.float32}


def empty_arranged(tokens: int, columns: int, elements: int, bits: int) -> np.ndarray:
    """Memory for `arrange`: [token, chunk, elements], bfloat16 (as uint16) or float32.

    It is torch's because that begins at a cache line: a load across two lines takes twice as long.
    """
    return torch.empty(tokens, -(-columns // elements), elements, dtype=_TYPES[bits]).numpy()


def load_as(x, index, out):
    """x[index] as out's type: as it is, or a bfloat16 as float32."""
    raise NotImplementedError("for compiled code")


@overload(load_as)
def _load_as(x, index, out):
    if x.dtype == out.dtype:
        return lambda x, index, out: x[index]
    return lambda x, index, out: load_float32(x, index)


@njit(nogil=True)
def arrange(x, order, out):
    """Tokens' x [token columns] into out [token, chunk, elements]; the address of each."""
    addresses = np.empty(len(x), np.int64)
    for token in range(len(x)):
        arrange_token(x[token], order, out[token])
        addresses[token] = out.ctypes.data + token * out.strides[0]
    return addresses


@njit(nogil=True)
def arrange_token(x, order, out):
    """The last chunk ends where the row ends; what an earlier chunk has is zero in it.

    Of 90 groups in chunks of 4, chunk 22 has the groups 86 to 89, and 86 and 87 are zero there.
    """
    chunks, elements = out.shape
    for chunk in range(chunks):
        first = min(chunk * elements, x.size - elements)
        done = chunk * elements - first
        for i in range(elements):
            if order[i] >= done:
                out[chunk, i] = load_as(x, first + order[i], out)
            else:
                out[chunk, i] = 0

"""Reorders activations to match the order of the decoded weights.

The compiled products read activations by address. numba may free an array once its name is no
longer used, even if its address still is. So the caller of compiled code allocates the array with
`empty_arranged`.
"""

import numpy as np
import torch
from numba import njit
from numba.extending import overload

from oss_kernels.cpu.numbers import load_float32

_TYPES = {16: torch.uint16, 32: torch.float32}


def empty_arranged(tokens: int, columns: int, elements: int, bits: int) -> np.ndarray:
    """Memory for `arrange`: [token, chunk, elements], bfloat16 (as uint16) or float32.

    torch allocates it because torch's memory starts at a cache line. A load across two cache lines
    takes twice as long.
    """
    return torch.empty(tokens, -(-columns // elements), elements, dtype=_TYPES[bits]).numpy()


def load_as(x, index, out):
    """x[index] in the type of out: unchanged, or bfloat16 converted to float32."""
    raise NotImplementedError("only code compiled by numba can call this")


@overload(load_as)
def _load_as(x, index, out):
    if x.dtype == out.dtype:
        return lambda x, index, out: x[index]
    return lambda x, index, out: load_float32(x, index)


@njit(nogil=True)
def arrange(x, order, out):
    """Write x [token columns] to out [token, chunk, elements]; return each token's address."""
    addresses = np.empty(len(x), np.int64)
    for token in range(len(x)):
        arrange_token(x[token], order, out[token])
        addresses[token] = out.ctypes.data + token * out.strides[0]
    return addresses


@njit(nogil=True)
def arrange_token(x, order, out):
    """One token. The last chunk ends at the end of the row and overlaps the chunk before it.

    The overlap is zero in the last chunk. With 90 groups in chunks of 4, chunk 22 has groups 86 to
    89, and groups 86 and 87 are zero there.
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

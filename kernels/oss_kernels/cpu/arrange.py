"""Activations in the order in which the products of rows take them.

Products take them by address, which keeps no memory alive: numba frees an array that it made itself
after its last use by name. So callers of compiled code make these arrays, with `room`.
"""

import numpy as np
from numba import njit

from oss_kernels.cpu.numbers import number, put

_TYPES = {16: np.uint16, 32: np.float32}


def room(tokens: int, columns: int, elements: int, bits: int) -> np.ndarray:
    """Memory for `arrange`: [token, chunk, elements], bfloat16 (as uint16) or float32."""
    return np.empty((tokens, -(-columns // elements), elements), _TYPES[bits])


@njit(nogil=True)
def arrange(x, order, out):
    """One token's x [columns] into out [chunk, elements of a chunk], for `row_product`.

    The last chunk ends where the row ends; what an earlier chunk has is zero in it.
    """
    chunks, elements = out.shape
    for chunk in range(chunks):
        first = min(chunk * elements, x.size - elements)
        done = chunk * elements - first
        for i in range(elements):
            value = number(x, first + order[i])
            put(out, (chunk, i), value if order[i] >= done else np.float32(0))

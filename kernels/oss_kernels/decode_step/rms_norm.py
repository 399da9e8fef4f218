"""RMSNorm of the residual stream, stored where the products that follow expect it."""

import numpy as np
from numba import njit

from oss_kernels.cpu.numbers import load_float32, round_as, store_exactly


@njit(nogil=True, fastmath={"reassoc", "contract"})
def sum_of_squares(x):
    total = np.float32(0)
    for i in range(x.size):
        value = load_float32(x, i)
        total += value * value
    return total


@njit(nogil=True, error_model="numpy")
def rms_norm(x, scale, eps, out, places):
    """out[places[i]] = x[i] / sqrt(mean(x²) + eps) * scale[i], rounded to the dtype of x."""
    inverse = np.float32(1) / np.sqrt(sum_of_squares(x) / np.float32(x.size) + eps)
    for i in range(x.size):
        value = load_float32(x, i) * inverse * load_float32(scale, i)
        store_exactly(out, places[i], round_as(value, x))

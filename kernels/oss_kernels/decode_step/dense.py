"""Rows of dense weights times the activations: bfloat16 or float32.

Activations are float32 in both cases. For bfloat16 weights they are in the order of
`oss_kernels.cpu.bf16_rows`, for float32 weights in their natural order.
"""

import numpy as np
from numba import njit, types
from numba.extending import overload

from oss_kernels.cpu.bf16_rows import bfloat16_product
from oss_kernels.cpu.numbers import load_float32, round_as, store_exactly
from oss_kernels.decode_step.memory import vector_at


@njit(nogil=True, fastmath={"reassoc", "contract"})
def float32_product(x, weights):
    total = np.float32(0)
    for i in range(weights.size):
        total += weights[i] * x[i]
    return total


def row_product(x, matrix_at, row, columns, like):
    """Row `row` of a matrix in the dtype of the number `like`, times arranged activations x."""
    raise NotImplementedError("only code compiled by numba can call this")


@overload(row_product)
def _row_product(x, matrix_at, row, columns, like):
    if like == types.uint16:
        return lambda x, matrix_at, row, columns, like: bfloat16_product(
            x.ctypes.data, matrix_at + 2 * row * columns, columns
        )
    return lambda x, matrix_at, row, columns, like: float32_product(
        x, vector_at(matrix_at + 4 * row * columns, columns, like)
    )


@njit(nogil=True)
def multiply(x, matrix_at, columns, like, bias, first, end, out):
    """out[row] = row `first` ... `end` - 1 of the matrix times x, plus its bias, rounded."""
    for row in range(first, end):
        value = row_product(x, matrix_at, row, columns, like) + load_float32(bias, row)
        store_exactly(out, row, round_as(value, out))


@njit(nogil=True)
def multiply_without_bias(x, matrix_at, columns, like, first, end, out):
    """`multiply` for a matrix without a bias."""
    for row in range(first, end):
        value = row_product(x, matrix_at, row, columns, like)
        store_exactly(out, row, round_as(value, out))


@njit(nogil=True)
def multiply_and_add(x, matrix_at, columns, like, bias, first, end, residual):
    """residual[row] += the number that `multiply` stores. The sum is rounded too."""
    for row in range(first, end):
        value = row_product(x, matrix_at, row, columns, like) + load_float32(bias, row)
        total = load_float32(residual, row) + round_as(value, residual)
        store_exactly(residual, row, round_as(total, residual))

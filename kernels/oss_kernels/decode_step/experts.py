"""Rows of the chosen experts' MXFP4 matrices, read in the order of the checkpoint.

`path` is the instruction set (see `oss_kernels.cpu`), a compile-time constant. Addresses are those
of one expert's blocks and scales, with `groups` groups per row.
"""

from typing import Any

from numba.extending import overload

from oss_kernels.cpu.e2m1_rows import GROUP_BYTES, row_products
from oss_kernels.cpu.numbers import load_float32, round_as, store_exactly
from oss_kernels.cpu.swiglu import swiglu

COMPILED: Any = {"nogil": True, "error_model": "numpy"}


def packed_product(path, x_at, blocks_at, scales_at, groups, row):
    """Row `row` of an expert's matrix times the arranged activations at x_at."""
    raise NotImplementedError("only code compiled by numba can call this")


@overload(packed_product, prefer_literal=True, jit_options=COMPILED)
def _packed_product(path, x_at, blocks_at, scales_at, groups, row):
    its_path = path.literal_value

    def packed_product(path, x_at, blocks_at, scales_at, groups, row):
        blocks, scales = blocks_at + row * groups * GROUP_BYTES, scales_at + row * groups
        (product,) = row_products(its_path, (x_at,), blocks, scales, groups)
        return product

    return packed_product


def gate_and_up(
    path, x_at, blocks_at, scales_at, groups, bias, first, end, alpha, limit, out, places
):
    """out[places[unit]] = SwiGLU of the units `first` ... `end` - 1, rounded to the dtype of bias.

    Row 2i of the matrix is the gate of unit i, row 2i + 1 its up.
    """
    raise NotImplementedError("only code compiled by numba can call this")


@overload(gate_and_up, prefer_literal=True, jit_options=COMPILED)
def _gate_and_up(
    path, x_at, blocks_at, scales_at, groups, bias, first, end, alpha, limit, out, places
):
    its_path = path.literal_value

    def gate_and_up(
        path, x_at, blocks_at, scales_at, groups, bias, first, end, alpha, limit, out, places
    ):
        for unit in range(first, end):
            row = 2 * unit
            gate = packed_product(its_path, x_at, blocks_at, scales_at, groups, row)
            up = packed_product(its_path, x_at, blocks_at, scales_at, groups, row + 1)
            gate += load_float32(bias, row)
            up += load_float32(bias, row + 1)
            value = swiglu(gate, up, alpha, limit)
            store_exactly(out, places[unit], round_as(value, bias))

    return gate_and_up


def add_down(path, x_at, blocks_at, scales_at, groups, bias, weight, first, sums):
    """sums[i] += weight * the expert's output at row first + i."""
    raise NotImplementedError("only code compiled by numba can call this")


@overload(add_down, prefer_literal=True, jit_options=COMPILED)
def _add_down(path, x_at, blocks_at, scales_at, groups, bias, weight, first, sums):
    its_path = path.literal_value

    def add_down(path, x_at, blocks_at, scales_at, groups, bias, weight, first, sums):
        for i in range(sums.size):
            row = first + i
            product = packed_product(its_path, x_at, blocks_at, scales_at, groups, row)
            sums[i] += weight * (product + load_float32(bias, row))

    return add_down

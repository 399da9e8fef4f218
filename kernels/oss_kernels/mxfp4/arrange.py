"""Arranges activations in the order in which a matrix-vector product reads MXFP4 weights.

A lane loads a group of 32 codes as four words of eight. It needs the activations of code 0 of its
four words, then those of code 1, and so on:

    x          a0 a1 a2 a3 a4 a5 a6 a7   b0 b1 ... b7   c0 ...      one word: eight activations
    arranged   a0 b0 c0 ...   a1 b1 c1 ...   ...   a7 b7 c7 ...     eight planes of columns / 8

In this order, each load of activations has the same layout as the load of the words, so nothing
moves between lanes inside the loop. It is computed once per token, not once per program.

Arranged activations contain the factor 2^64 that `decode.group_dots` needs. It is exact, because
activations are below 2^63.
"""

import triton
import triton.language as tl
from torch import Tensor

from oss_kernels.launch import Launch
from oss_kernels.mxfp4.decode import TWO_TO_64


@triton.jit
def store_arranged(out, column, columns, values, mask):
    """Store float32 activations of these columns to one token's `out` [8 * plane], arranged."""
    tl.store(out + (column % 8) * (columns // 8) + column // 8, values * TWO_TO_64, mask=mask)


@triton.jit
def arrange_kernel(x, out, columns, COLUMNS: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    values = tl.load(x + token * columns + column, mask=column < columns, other=0.0)
    store_arranged(out + token * columns, column, columns, values.to(tl.float32), column < columns)


def launch_arrange(x: Tensor, out: Tensor) -> Launch:
    """The launch: one program per 1,024 columns of a token. x and out are [token columns]."""
    tokens, columns = x.shape
    return Launch(
        arrange_kernel,
        (tokens, triton.cdiv(columns, 1024)),
        {"x": x, "out": out, "columns": columns},
        {"COLUMNS": min(1024, triton.next_power_of_2(columns))},
    )

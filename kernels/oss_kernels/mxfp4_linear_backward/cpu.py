"""dy weight with MXFP4 weights on the CPU, in tiles of columns.

A tile of the weight is dequantized for all of its rows, multiplied by torch, and overwritten while
it is still in the cache. So every element of dx is one sum, rounded once.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from oss_kernels.cpu import machine
from oss_kernels.cpu.dequantize import dequantize
from oss_kernels.cpu.even_rows import even_rows
from oss_kernels.cpu.numbers import as_numpy
from oss_kernels.cpu.threads import follow_torch
from oss_kernels.mxfp4.reference import BLOCK
from oss_kernels.mxfp4_linear_backward.checks import check_mxfp4_linear_backward

NUMBERS = 2**20  # in a tile of weights: 2 MB of bfloat16, close to the size of an L2 cache


def mxfp4_linear_backward(
    dy: Float[Tensor, "token rows"],
    blocks: UInt8[Tensor, "rows groups 16"],
    scales: UInt8[Tensor, "rows groups"],
) -> Float[Tensor, "token columns"]:
    """The operation of `reference.mxfp4_linear_backward`, for float32 and bfloat16.

    Multiplies in bfloat16 if dy is bfloat16 and the CPU has an instruction for it, otherwise in
    float32. Sums are float32.
    """
    check_mxfp4_linear_backward(dy, blocks, scales)
    narrow = dy.dtype == torch.bfloat16 and machine.has_fast_bfloat16()
    kind = torch.bfloat16 if narrow else torch.float32
    rows, groups = scales.shape
    dx = torch.empty(len(dy), BLOCK * groups, dtype=dy.dtype)
    step = max(1, NUMBERS // (BLOCK * max(1, rows)))  # groups in a tile
    tile = torch.empty(rows * BLOCK * min(step, groups), dtype=kind)
    given = even_rows(dy) if narrow else dy.to(kind)
    follow_torch()
    for first in range(0, groups, step):
        some = slice(first, min(first + step, groups))
        count = BLOCK * (some.stop - first)
        weight = tile[: rows * count].view(rows, count)
        dequantize(as_numpy(blocks[:, some]), as_numpy(scales[:, some]), as_numpy(weight))
        dx[:, BLOCK * first : BLOCK * some.stop] = (given @ weight)[: len(dy)]
    return dx

"""MXFP4 linear layer on the CPU: by packed rows for a few tokens, by dequantized tiles for many.

For one token the work is to read the weights: 17 bytes for 32 of them, each once, in the order of
the checkpoint. For many it is the products, which torch's matrix product does best on plain
numbers: a tile of rows is dequantized, used for all tokens, and overwritten while still in cache.
"""

from functools import cache

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numba import njit, prange
from torch import Tensor

from oss_kernels.cpu import machine
from oss_kernels.cpu.arrange import arrange, empty_arranged
from oss_kernels.cpu.dequantize import dequantize
from oss_kernels.cpu.e2m1_layouts import LAYOUTS, path_for
from oss_kernels.cpu.e2m1_tile import ROWS, tile_product
from oss_kernels.cpu.numbers import as_numpy, load_float32, store_rounded
from oss_kernels.cpu.sources import fingerprint
from oss_kernels.cpu.threads import follow_torch
from oss_kernels.mxfp4_linear import reference
from oss_kernels.mxfp4_linear.checks import check

FEW = 32  # tokens, for which rows and tiles take about as long
TILE = 512  # rows: 2.9 MB of bfloat16 at 2,880 columns, which a second-level cache nearly holds


@cache
def rows_kernel(path: machine.InstructionSet):
    """The compiled kernel of one path; bfloat16 is uint16; `arranged` has the path's type."""
    order, sources = np.array(LAYOUTS[path].order), fingerprint()

    @njit(parallel=True, nogil=True, cache=True)
    def kernel(x, blocks, scales, bias, arranged, out):
        _ = sources  # so that numba compiles anew when `cpu/` changes
        tokens = len(x)
        rows, groups = scales.shape
        addresses = arrange(x, order, arranged)
        blocks_at, scales_at = blocks.ctypes.data, scales.ctypes.data
        for tile in prange(-(-rows // ROWS)):
            first = tile * ROWS
            count = min(ROWS, rows - first)
            products = np.empty((tokens, ROWS), np.float32)
            tile_product(path, addresses, blocks_at, scales_at, groups, first, count, products)
            for token in range(tokens):
                for row in range(first, first + count):
                    value = products[token, row - first]
                    if bias is not None:
                        value += load_float32(bias, row)
                    store_rounded(out, (token, row), value)

    return kernel


def by_rows(
    x: Float[Tensor, "token columns"],
    blocks: UInt8[Tensor, "rows groups 16"],
    scales: UInt8[Tensor, "rows groups"],
    bias: Float[Tensor, "rows"] | None,
    path: machine.InstructionSet,
) -> Float[Tensor, "token rows"]:
    """Each row times each token; `path` needs groups for a chunk, see `path_for`."""
    out = torch.empty(len(x), len(scales), dtype=x.dtype)
    follow_torch()
    layout = LAYOUTS[path]
    rows_kernel(path)(
        as_numpy(x),
        as_numpy(blocks),
        as_numpy(scales),
        None if bias is None else as_numpy(bias),
        empty_arranged(x.shape[0], x.shape[1], layout.elements, layout.bits),
        as_numpy(out),
    )
    return out


def by_tiles(
    x: Float[Tensor, "token columns"],
    blocks: UInt8[Tensor, "rows groups 16"],
    scales: UInt8[Tensor, "rows groups"],
    bias: Float[Tensor, "rows"] | None,
) -> Float[Tensor, "token rows"]:
    """Matrix products with dequantized tiles.

    In bfloat16 where x is and the CPU has an instruction for it, which rounds once, at the end;
    else in float32.
    """
    narrow = x.dtype == torch.bfloat16 and machine.multiplies_bfloat16()
    kind = torch.bfloat16 if narrow else torch.float32
    rows, columns = len(scales), x.shape[1]
    tile = torch.empty(min(TILE, rows), columns, dtype=kind)
    out = torch.empty(len(x), rows, dtype=x.dtype)
    x, bias = x.to(kind), None if bias is None else bias.to(kind)
    follow_torch()
    for first in range(0, rows, TILE):
        some = slice(first, min(first + TILE, rows))
        weight = tile[: some.stop - first]
        dequantize(as_numpy(blocks[some]), as_numpy(scales[some]), as_numpy(weight))
        own = None if bias is None else bias[some]
        out[:, some] = torch.nn.functional.linear(x, weight, own)
    return out


def mxfp4_linear(
    x: Float[Tensor, "token columns"],
    blocks: UInt8[Tensor, "rows groups 16"],
    scales: UInt8[Tensor, "rows groups"],
    bias: Float[Tensor, "rows"] | None,
) -> Float[Tensor, "token rows"]:
    """The operation of `reference.mxfp4_linear`, without gradients."""
    check(x, blocks, scales, bias)
    rows, groups = scales.shape
    path = path_for(x.dtype, groups)
    if path is None or 0 in (len(x), rows):
        return reference.mxfp4_linear(x, blocks, scales, bias)
    if len(x) <= FEW:
        return by_rows(x, blocks, scales, bias, path)
    return by_tiles(x, blocks, scales, bias)

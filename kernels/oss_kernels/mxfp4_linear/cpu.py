"""x weight^T + bias with MXFP4 weights on the CPU: row by row for a few tokens, in tiles for many.

For one token nearly all the time goes into reading the weights: 17 bytes per 32 weights, each once,
in the order of the checkpoint. For many tokens it goes into the products, where torch's matrix
product is fastest. So a tile of rows is dequantized, used for all tokens, and overwritten while it
is still in the cache.
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
from oss_kernels.cpu.e2m1_layouts import LAYOUTS, choose_path
from oss_kernels.cpu.e2m1_tile import ROWS, tile_product
from oss_kernels.cpu.even_rows import even_rows
from oss_kernels.cpu.numbers import as_numpy, load_float32, store_rounded
from oss_kernels.cpu.sources import fingerprint
from oss_kernels.cpu.threads import follow_torch
from oss_kernels.mxfp4_linear import reference
from oss_kernels.mxfp4_linear.checks import check_mxfp4_linear

FEW = 32  # tokens: at about this number the row path and the tile path take equally long
TILE = 512  # rows: 2.9 MB of bfloat16 at 2,880 columns, close to the size of an L2 cache


@cache
def rows_kernel(path: machine.InstructionSet):
    """The compiled kernel of one path. bfloat16 is uint16; `arranged` has the path's type."""
    order, sources = np.array(LAYOUTS[path].order), fingerprint()

    @njit(parallel=True, nogil=True, cache=True)
    def kernel(x, blocks, scales, bias, arranged, out):
        _ = sources  # makes numba recompile when a file in `cpu/` changes
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


def multiply_by_rows(
    x: Float[Tensor, "token columns"],
    blocks: UInt8[Tensor, "rows groups 16"],
    scales: UInt8[Tensor, "rows groups"],
    bias: Float[Tensor, "rows"] | None,
    path: machine.InstructionSet,
) -> Float[Tensor, "token rows"]:
    """Each row times each token. A row has at least one chunk of `path`; see `choose_path`."""
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


def multiply_by_tiles(
    x: Float[Tensor, "token columns"],
    blocks: UInt8[Tensor, "rows groups 16"],
    scales: UInt8[Tensor, "rows groups"],
    bias: Float[Tensor, "rows"] | None,
) -> Float[Tensor, "token rows"]:
    """Matrix products with dequantized tiles of rows.

    Multiplies in bfloat16 (rounding once, at the end) if x is bfloat16 and the CPU has an
    instruction for it, otherwise in float32.
    """
    narrow = x.dtype == torch.bfloat16 and machine.has_fast_bfloat16()
    kind = torch.bfloat16 if narrow else torch.float32
    rows, columns = len(scales), x.shape[1]
    tile = torch.empty(min(TILE, rows), columns, dtype=kind)
    out = torch.empty(len(x), rows, dtype=x.dtype)
    bias = None if bias is None else bias.to(kind)
    given = even_rows(x) if narrow else x.to(kind)
    follow_torch()
    for first in range(0, rows, TILE):
        some = slice(first, min(first + TILE, rows))
        weight = tile[: some.stop - first]
        dequantize(as_numpy(blocks[some]), as_numpy(scales[some]), as_numpy(weight))
        own = None if bias is None else bias[some]
        out[:, some] = torch.nn.functional.linear(given, weight, own)[: len(x)]
    return out


def mxfp4_linear(
    x: Float[Tensor, "token columns"],
    blocks: UInt8[Tensor, "rows groups 16"],
    scales: UInt8[Tensor, "rows groups"],
    bias: Float[Tensor, "rows"] | None,
) -> Float[Tensor, "token rows"]:
    """The operation of `reference.mxfp4_linear`, without gradients."""
    check_mxfp4_linear(x, blocks, scales, bias)
    rows, groups = scales.shape
    path = choose_path(x.dtype, groups)
    if path is None or 0 in (len(x), rows):
        return reference.mxfp4_linear(x, blocks, scales, bias)
    if len(x) <= FEW:
        return multiply_by_rows(x, blocks, scales, bias, path)
    return multiply_by_tiles(x, blocks, scales, bias)

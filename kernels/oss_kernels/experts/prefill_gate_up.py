"""The first half of the experts by tiles: activation = swiglu(gate_up x + bias).

One program computes ROWS units of one expert, gate and up of each, for a tile of tokens that use
it. Gates are the even rows of the matrix and ups the odd rows. Two separate products with the same
tokens leave gate and up of a unit in the same lane, so the activation needs no exchange between
lanes.
"""

import triton
import triton.language as tl

from oss_kernels.experts.swiglu import clamped_swiglu
from oss_kernels.mxfp4.decode import weight_tile


@triton.jit
def gate_up_kernel(
    x,
    blocks,
    scales,
    bias,
    pairs,
    tile_expert,
    tile_first,
    tile_end,
    activation,
    width,
    groups,
    alpha,
    limit,
    SLOTS: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    GROUPS: tl.constexpr,
    DOT_DTYPE: tl.constexpr,
):
    tile = tl.program_id(1)
    first = tl.load(tile_first + tile)
    end = tl.load(tile_end + tile)
    if first >= end:  # an empty tile
        return
    before = tl.load(tile_expert + tile).to(tl.int64) * 2 * width  # rows of the experts before it
    # 32 bits suffice from here on: one expert's matrix has far fewer than 2^31 bytes.
    blocks += before * groups * 16
    scales += before * groups
    place = first + tl.arange(0, TOKENS)
    token = tl.load(pairs + place, mask=place < end, other=0) // SLOTS
    x_start = x + token.to(tl.int64)[None, :] * (groups * 32)
    unit = tl.program_id(0) * ROWS + tl.arange(0, ROWS)

    gate = tl.zeros((ROWS, TOKENS), tl.float32)
    up = tl.zeros((ROWS, TOKENS), tl.float32)
    for start in range(0, groups, GROUPS):
        column = start * 32 + tl.arange(0, GROUPS * 32)
        x_tile = tl.load(  # [columns, TOKENS]
            x_start + column[:, None],
            mask=(place < end)[None, :] & (column < groups * 32)[:, None],
            other=0.0,
        ).to(DOT_DTYPE)
        group = start + tl.arange(0, GROUPS)
        gates = weight_tile(blocks, scales, 2 * unit, 2 * width, group, groups)
        gate = tl.dot(gates.to(DOT_DTYPE), x_tile, gate, input_precision="ieee")
        ups = weight_tile(blocks, scales, 2 * unit + 1, 2 * width, group, groups)
        up = tl.dot(ups.to(DOT_DTYPE), x_tile, up, input_precision="ieee")

    bias += before
    gate += tl.load(bias + 2 * unit, mask=unit < width, other=0.0).to(tl.float32)[:, None]
    up += tl.load(bias + 2 * unit + 1, mask=unit < width, other=0.0).to(tl.float32)[:, None]
    tl.store(  # [ROWS, TOKENS], rounded to activation's dtype
        activation + place.to(tl.int64)[None, :] * width + unit[:, None],
        clamped_swiglu(gate, up, alpha, limit),
        mask=(place < end)[None, :] & (unit < width)[:, None],
    )

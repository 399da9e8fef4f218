"""The second half of the experts by tiles: weight * (down activation + bias), summed over slots.

A `down` program computes ROWS outputs of a tile of tokens that share an expert. It writes each pair
of a token and an expert to its own row of by_slot, as float32. A `combine` program then adds a
token's slots in order, for COLUMNS outputs.
"""

import triton
import triton.language as tl

from oss_kernels.mxfp4.decode import weight_tile


@triton.jit
def down_kernel(
    activation,
    blocks,
    scales,
    bias,
    weights,
    pairs,
    tile_expert,
    tile_first,
    tile_end,
    by_slot,
    hidden,
    groups,
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
    before = tl.load(tile_expert + tile).to(tl.int64) * hidden  # rows of the experts before it
    # 32 bits suffice from here on: one expert's matrix has far fewer than 2^31 bytes.
    blocks += before * groups * 16
    scales += before * groups
    place = first + tl.arange(0, TOKENS)
    # The activations of a tile are next to each other in memory.
    start_of = activation + place.to(tl.int64)[None, :] * (groups * 32)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)

    sums = tl.zeros((ROWS, TOKENS), tl.float32)
    for start in range(0, groups, GROUPS):
        column = start * 32 + tl.arange(0, GROUPS * 32)
        tokens = tl.load(  # [columns, TOKENS]
            start_of + column[:, None],
            mask=(place < end)[None, :] & (column < groups * 32)[:, None],
            other=0.0,
        ).to(DOT_DTYPE)
        group = start + tl.arange(0, GROUPS)
        matrix = weight_tile(blocks, scales, row, hidden, group, groups)  # [ROWS, columns]
        sums = tl.dot(matrix.to(DOT_DTYPE), tokens, sums, input_precision="ieee")

    bias += before
    sums += tl.load(bias + row, mask=row < hidden, other=0.0).to(tl.float32)[:, None]
    pair = tl.load(pairs + place, mask=place < end, other=0).to(tl.int64)
    sums *= tl.load(weights + pair, mask=place < end, other=0.0)[None, :]
    tl.store(  # [ROWS, TOKENS]; the pairs of a tile are not next to each other here
        by_slot + pair[None, :] * hidden + row[:, None],
        sums,
        mask=(place < end)[None, :] & (row < hidden)[:, None],
    )


@triton.jit
def combine_kernel(by_slot, out, hidden, SLOTS: tl.constexpr, COLUMNS: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((COLUMNS,), tl.float32)
    for slot in range(SLOTS):
        start = by_slot + (token * SLOTS + slot) * hidden
        total += tl.load(start + column, mask=column < hidden, other=0.0)
    tl.store(out + token * hidden + column, total, mask=column < hidden)

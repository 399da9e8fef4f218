"""The second half of the experts by tiles: back to the hidden size, weighted, summed over slots."""

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
    if first >= end:  # there are fewer tiles than there might have been
        return
    before = tl.load(tile_expert + tile).to(tl.int64) * hidden  # rows of earlier experts
    # From here on 32 bits: one matrix is far from 2^31 bytes, only all experts together are not.
    blocks += before * groups * 16
    scales += before * groups
    place = first + tl.arange(0, TOKENS)
    start_of = activation + place.to(tl.int64)[None, :] * (groups * 32)  # neighbors in memory
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
        matrix = weight_tile(blocks, scales, row, hidden, group, groups)
        sums = tl.dot(matrix.to(DOT_DTYPE), tokens, sums, input_precision="ieee")

    bias += before
    sums += tl.load(bias + row, mask=row < hidden, other=0.0).to(tl.float32)[:, None]
    pair = tl.load(pairs + place, mask=place < end, other=0).to(tl.int64)
    sums *= tl.load(weights + pair, mask=place < end, other=0.0)[None, :]
    tl.store(  # each pair to its own place: tokens of a tile lie apart
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

"""The MXFP4 linear layer for one to eight tokens: out = x weight^T + bias, limited by memory.

    row of weights   [ group 0 | group 1 | ... | group 31 ]  [ group 32 | ...     a step of the loop
                        lane 0    lane 1         lane 31         lane 0

One program computes ROWS outputs of every token. A lane loads a group of 32 codes as four int32
words in one 128-bit load. It multiplies them by the group's activations, sums, applies the group's
scale once, and adds the result to its running sum. The lanes' sums are added once, after the last
step. Weights are read from memory once, 4.25 bits each. Activations are small and stay in the
cache.

The code does not assign work to lanes. Triton does: it gives the last axis (four words) to one
lane, groups to the 32 lanes of a warp, and rows to warps.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from oss_kernels.launch import Launch
from oss_kernels.mxfp4.decode import e8m0, group_dots

MAX_TOKENS = 8
GROUPS = 32  # per step: one group for each lane of a warp


@triton.jit
def row_dots(
    x, words, scales, rows, tokens, row_count, groups, TOKENS: tl.constexpr, GROUPS: tl.constexpr
):
    """Products of rows of MXFP4 weights with tokens: float32 [TOKENS, ROWS].

    x points to [tokens, 32 * groups], words (int32) to [row_count, 4 * groups] and scales to
    [row_count, groups]. rows is int32 [ROWS]. Tokens >= `tokens` and rows >= `row_count` are not
    read and give zeros.
    """
    token = tl.arange(0, TOKENS)[:, None, None, None, None]
    row = rows[None, :, None]
    sums = tl.zeros((TOKENS, rows.shape[0], GROUPS), tl.float32)
    for start in range(0, groups, GROUPS):
        group = start + tl.arange(0, GROUPS)
        # x is loaded before the words because Triton gives the arithmetic the layout of the last
        # load. The many words should stay in the lanes that loaded them, not the few x.
        x_group = group[None, None, :, None, None]
        in_group = tl.arange(0, 4)[:, None] * 8 + tl.arange(0, 8)[None, :]
        activations = tl.load(  # [TOKENS, 1, GROUPS, 4, 8]
            x
            + token.to(tl.int64) * (groups * 32)
            + x_group * 32
            + in_group[None, None, None, :, :],
            mask=(token < tokens) & (x_group < groups),
            other=0.0,
        ).to(tl.float32)
        # [1, ROWS, GROUPS], in 64 bits: row * groups may exceed 2^31.
        first = row.to(tl.int64) * groups + group[None, None, :]
        within = (row < row_count) & (group[None, None, :] < groups)
        codes = tl.load(  # [1, ROWS, GROUPS, 4], eight codes each
            words + first[:, :, :, None] * 4 + tl.arange(0, 4)[None, None, None, :],
            mask=within[:, :, :, None],
            other=0,
        )
        scale = e8m0(tl.load(scales + first, mask=within, other=0).to(tl.int32))
        sums += group_dots(codes, activations) * scale  # [TOKENS, ROWS, GROUPS]
    return tl.sum(sums, axis=2)


@triton.jit
def decode_kernel(
    x,
    words,
    scales,
    bias,
    out,
    tokens,
    row_count,
    groups,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    GROUPS: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    sums = row_dots(x, words, scales, rows, tokens, row_count, groups, TOKENS, GROUPS)
    if bias is not None:  # decided at compile time
        sums += tl.load(bias + rows, mask=rows < row_count, other=0.0).to(tl.float32)[None, :]
    token = tl.arange(0, TOKENS)[:, None]
    within = (token < tokens) & (rows < row_count)[None, :]
    tl.store(out + token.to(tl.int64) * row_count + rows[None, :], sums, mask=within)


def launch(x: Tensor, blocks: Tensor, scales: Tensor, bias: Tensor | None, out: Tensor) -> Launch:
    """The launch: one program per ROWS rows and all tokens, at most MAX_TOKENS.

    All tensors are contiguous, and the address of blocks is a multiple of four bytes.
    """
    tokens, (rows, groups) = len(x), scales.shape
    # A lane's registers hold codes of a quarter of the program's rows, and activations and sums for
    # each token. So more tokens leave room for fewer rows.
    tile = 16 if tokens <= 2 else 8
    return Launch(
        decode_kernel,
        (triton.cdiv(rows, tile) if tokens else 0,),
        {
            "x": x,
            "words": blocks.view(torch.int32),
            "scales": scales,
            "out": out,
            "tokens": tokens,
            "row_count": rows,
            "groups": groups,
        }
        | ({} if bias is None else {"bias": bias}),
        {"TOKENS": triton.next_power_of_2(max(1, tokens)), "ROWS": tile, "GROUPS": GROUPS}
        | ({"bias": None} if bias is None else {}),
    )

"""The MXFP4 linear layer for one to eight tokens: a matrix-vector product bound by memory.

    row of weights   [ group 0 | group 1 | ... | group 31 ]  [ group 32 | ...     a step of the loop
                        lane 0    lane 1         lane 31         lane 0

A program makes ROWS outputs of every token. A lane loads a group, 32 codes, as four int32 words in
one load of 128 bits, multiplies them with the group's activations, adds up, applies the group's
scale once, and keeps the sum. Lanes meet once, after the last step. Weights are read from memory
once, 4.25 bits each; activations are few, and stay in the cache.

No line says which lane does what: Triton gives the last axis, four words, to one lane, groups to
the 32 lanes of a warp, and rows to warps.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from oss_kernels.launch import Launch
from oss_kernels.mxfp4.decode import e8m0, group_dots

MAX_TOKENS = 8
GROUPS = 32  # a step: one group a lane of a warp


@triton.jit
def row_dots(
    x, words, scales, rows, tokens, row_count, groups, TOKENS: tl.constexpr, GROUPS: tl.constexpr
):
    """Products of rows of MXFP4 weights with tokens: float32 [TOKENS, ROWS].

    x: pointer to [tokens, 32 * groups]; words: int32 pointer to [row_count, 4 * groups]; scales: to
    [row_count, groups]; rows: int32 [ROWS]. Tokens from `tokens` and rows from `row_count` on are
    not read, and give zeros.
    """
    token = tl.arange(0, TOKENS)[:, None, None, None, None]
    row = rows[None, :, None]
    sums = tl.zeros((TOKENS, rows.shape[0], GROUPS), tl.float32)
    for start in range(0, groups, GROUPS):
        group = start + tl.arange(0, GROUPS)
        # x comes before the words: Triton lays out the arithmetic as the last of several loads,
        # and it is the many words that should stay where they were loaded, not the few x.
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
        # [1, ROWS, GROUPS], in 64 bits: row * groups may pass 2^31.
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
    if bias is not None:  # decided when it is compiled
        sums += tl.load(bias + rows, mask=rows < row_count, other=0.0).to(tl.float32)[None, :]
    token = tl.arange(0, TOKENS)[:, None]
    within = (token < tokens) & (rows < row_count)[None, :]
    tl.store(out + token.to(tl.int64) * row_count + rows[None, :], sums, mask=within)


def launch(x: Tensor, blocks: Tensor, scales: Tensor, bias: Tensor | None, out: Tensor) -> Launch:
    """One program for every ROWS rows, with all of the at most MAX_TOKENS tokens; every tensor
    contiguous, and blocks on a multiple of four bytes."""
    tokens, (rows, groups) = len(x), scales.shape
    # A lane has the codes of a fourth of the program's rows, and activations and sums for each
    # token: with more tokens, fewer rows.
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

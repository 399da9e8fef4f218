"""The MXFP4 linear layer for one to eight tokens: out = x weight^T + bias, limited by memory.

    row of weights   [ group 0 | group 1 | ... | group 31 ]  [ group 32 | ...     a step of the loop
                        lane 0    lane 1         lane 31         lane 0

One program is one warp and computes ROWS outputs of every token. A lane loads a group of 32 codes
as four int32 words in one 128-bit load. It multiplies them by the group's activations, sums,
applies the group's scale once, and adds the result to its running sum. The lanes' sums are added
once, after the last step. Weights are read from memory once, 4.25 bits each.

`tl.range` copies the words and activations of the next two steps to shared memory while one is
used. With a single warp, every load has the same layout: the last axis (four words) in one lane,
groups in the 32 lanes. So nothing moves between lanes inside the loop. `mxfp4/arrange.py` puts the
activations into the order that this needs.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from oss_kernels.launch import INTERPRETED, Launch
from oss_kernels.mxfp4.arrange import launch_arrange
from oss_kernels.mxfp4.decode import e8m0, group_dots

MAX_TOKENS = 8
GROUPS = 32  # per step: one group for each lane of a warp
STAGES = 3  # steps in flight


@triton.jit
def step_dots(
    x, words, scales, rows, tokens, row_count, groups, start,
    TOKENS: tl.constexpr, GROUPS: tl.constexpr,
):  # fmt: skip
    """Products of groups start to start + GROUPS - 1: float32 [TOKENS, ROWS, GROUPS].

    x points to arranged activations [tokens, 32 * groups], words (int32) to [row_count, 4 * groups]
    and scales to [row_count, groups]. rows is int32 [ROWS]. Tokens >= `tokens`, rows >= `row_count`
    and groups >= `groups` are not read and give zeros.
    """
    token = tl.arange(0, TOKENS)[:, None, None, None]
    word = tl.arange(0, 4)[None, None, None, :]
    group = start + tl.arange(0, GROUPS)[None, None, :]
    # [1, ROWS, GROUPS], in 64 bits: row * groups may exceed 2^31.
    first = rows.to(tl.int64)[None, :, None] * groups + group
    within = (rows < row_count)[None, :, None] & (group < groups)
    codes = tl.load(  # [1, ROWS, GROUPS, 4], eight codes each
        words + first[:, :, :, None] * 4 + word, mask=within[:, :, :, None], other=0
    )
    scale = e8m0(tl.load(scales + first, mask=within, other=0).to(tl.int32))
    place = token.to(tl.int64) * (groups * 32) + group[:, :, :, None] * 4 + word
    mask = (token < tokens) & (group < groups)[:, :, :, None]
    return group_dots(codes, x + place, groups * 4, mask) * scale


@triton.jit
def row_dots(
    x, words, scales, rows, tokens, row_count, groups,
    TOKENS: tl.constexpr, GROUPS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Products of rows of MXFP4 weights with tokens: float32 [TOKENS, ROWS]. See `step_dots`."""
    sums = tl.zeros((TOKENS, rows.shape[0], GROUPS), tl.float32)
    for start in tl.range(0, groups, GROUPS, num_stages=STAGES):  # pyright: ignore[reportGeneralTypeIssues]
        sums += step_dots(x, words, scales, rows, tokens, row_count, groups, start, TOKENS, GROUPS)
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
    STAGES: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    sums = row_dots(x, words, scales, rows, tokens, row_count, groups, TOKENS, GROUPS, STAGES)
    if bias is not None:  # decided at compile time
        sums += tl.load(bias + rows, mask=rows < row_count, other=0.0).to(tl.float32)[None, :]
    token = tl.arange(0, TOKENS)[:, None]
    within = (token < tokens) & (rows < row_count)[None, :]
    tl.store(out + token.to(tl.int64) * row_count + rows[None, :], sums, mask=within)


def count_rows(tokens: int, dtype: torch.dtype) -> int:
    """Rows per program. A lane's registers hold 32 codes per row and 4 products per row and token.

    float32 activations take twice the registers of bfloat16 ones. bfloat16 has at least two rows:
    the 64 lanes of a gfx942 wave would share the words of a single one, in loads of 64 bits.
    Triton's interpreter has no registers, and its time is proportional to the number of programs.
    """
    if INTERPRETED:
        return 32
    most, fewest = (8, 2) if dtype == torch.bfloat16 else (4, 1)
    return max(fewest, most // triton.next_power_of_2(max(1, tokens)))


def make_launches(
    x: Tensor, blocks: Tensor, scales: Tensor, bias: Tensor | None, out: Tensor
) -> tuple[Launch, ...]:
    """The launches: arrange x, then one program per few rows and all tokens, at most MAX_TOKENS.

    All tensors are contiguous, and the address of blocks is a multiple of four bytes.
    """
    tokens, (rows, groups) = len(x), scales.shape
    arranged, tile = torch.empty_like(x), count_rows(tokens, x.dtype)
    product = Launch(
        decode_kernel,
        (triton.cdiv(rows, tile) if tokens else 0,),
        {
            "x": arranged,
            "words": blocks.view(torch.int32),
            "scales": scales,
            "out": out,
            "tokens": tokens,
            "row_count": rows,
            "groups": groups,
        }
        | ({} if bias is None else {"bias": bias}),
        {"TOKENS": triton.next_power_of_2(max(1, tokens)), "ROWS": tile}
        | {"GROUPS": GROUPS, "STAGES": STAGES}
        | ({"bias": None} if bias is None else {}),
        num_warps=1,
    )
    return launch_arrange(x, arranged), product

"""The MXFP4 linear layer for many tokens: tiles of weights, decoded and multiplied as matrices.

                       tokens
                    x x x x x x x x  columns
    rows  w w w w   o o o o o o o o
          w w w w   o o o o o o o o  <- one program

A program makes ROWS outputs of TOKENS tokens. A step loads GROUPS groups of each row, 16 bytes and
a scale each, and decodes them to bfloat16, which holds them exactly; then the matrix unit
multiplies them with the tokens' columns. While it does, the next two steps' loads are under way.
The weights stand on the left: their rows always fill a matrix instruction, few tokens do not. The
result is transposed as it is stored.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from oss_kernels.launch import Launch, dot_dtype
from oss_kernels.mxfp4.decode import weight_tile


@triton.jit
def prefill_kernel(
    x,
    blocks,
    scales,
    bias,
    out,
    tokens,
    row_count,
    groups,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    GROUPS: tl.constexpr,
    DOT_DTYPE: tl.constexpr,
):
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, 32 * GROUPS)
    # 64 bits: token * columns and row * groups * 16 may pass 2^31.
    x_start = x + token.to(tl.int64)[:, None] * (groups * 32)
    sums = tl.zeros((ROWS, TOKENS), tl.float32)
    for start in range(0, groups, GROUPS):
        group = start + tl.arange(0, GROUPS)
        weights = weight_tile(blocks, scales, row.to(tl.int64), row_count, group, groups)
        columns = start * 32 + column
        activations = tl.load(
            x_start + columns[None, :],
            mask=(token < tokens)[:, None] & (columns < groups * 32)[None, :],
            other=0.0,
        )
        sums = tl.dot(
            weights.to(DOT_DTYPE),
            tl.trans(activations.to(DOT_DTYPE)),
            sums,
            input_precision="ieee",
        )
    result = tl.trans(sums)
    if bias is not None:  # decided when it is compiled
        result += tl.load(bias + row, mask=row < row_count, other=0.0).to(tl.float32)[None, :]
    within_out = (token < tokens)[:, None] & (row < row_count)[None, :]
    tl.store(out + token.to(tl.int64)[:, None] * row_count + row[None, :], result, mask=within_out)


def tile(tokens: int, dtype: torch.dtype) -> tuple[int, int, int, int]:
    """(TOKENS, ROWS, GROUPS, warps), from sizes only, for any device.

    Few tokens take fewer rows, for there to be more programs, and the fewest a longer step, for
    each to ask for more bytes. float32, which matrix units would round, is multiplied in plain
    registers, and takes a tile and a step that fit there.
    """
    wide = max(16, triton.next_power_of_2(tokens))
    if dtype == torch.float32:
        return min(32, wide), 64, 1, 4
    if wide >= 128:
        return 128, 128, 2, 8
    return wide, 64, 4 if wide == 16 else 2, 4


def launch(x: Tensor, blocks: Tensor, scales: Tensor, bias: Tensor | None, out: Tensor) -> Launch:
    """A program a tile, those with the same rows next to each other; every tensor contiguous."""
    (token_count, columns), row_count = x.shape, len(scales)
    tokens, rows, groups, warps = tile(token_count, x.dtype)
    return Launch(
        prefill_kernel,
        (triton.cdiv(token_count, tokens), triton.cdiv(row_count, rows)),
        {
            "x": x,
            "blocks": blocks,
            "scales": scales,
            "out": out,
            "tokens": token_count,
            "row_count": row_count,
            "groups": columns // 32,
        }
        | ({} if bias is None else {"bias": bias}),
        {
            "TOKENS": tokens,
            "ROWS": rows,
            "GROUPS": groups,
            "DOT_DTYPE": dot_dtype(x.dtype),
        }
        | ({"bias": None} if bias is None else {}),
        num_warps=warps,
        num_stages=3,
    )

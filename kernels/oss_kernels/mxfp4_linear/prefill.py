"""The MXFP4 linear layer for many tokens: out = x weight^T + bias, by tiles.

                       tokens
                    x x x x x x x x  columns
    rows  w w w w   o o o o o o o o
          w w w w   o o o o o o o o  <- one program

One program computes ROWS outputs of TOKENS tokens. Each step loads GROUPS groups of each row, 16
bytes and a scale byte each, and decodes them to bfloat16, which is exact. Matrix instructions then
multiply them by the tokens' columns, while the loads of the next two steps are in flight. Every
tile of tokens reads all weights once. The weights are the left operand, because their rows always
fill a matrix instruction and a few tokens do not. The result is transposed before it is stored.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from oss_kernels.launch import Launch, dot_dtype
from oss_kernels.mxfp4.decode import weight_tile


@triton.jit(do_not_specialize=("tokens",))
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
    # 64 bits: token * columns and row * groups * 16 may exceed 2^31.
    x_start = x + token.to(tl.int64)[:, None] * (groups * 32)
    sums = tl.zeros((ROWS, TOKENS), tl.float32)
    for start in range(0, groups, GROUPS):
        group = start + tl.arange(0, GROUPS)
        # [ROWS, 32 * GROUPS]
        weights = weight_tile(blocks, scales, row.to(tl.int64), row_count, group, groups)
        columns = start * 32 + column
        activations = tl.load(  # [TOKENS, 32 * GROUPS]
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
    if bias is not None:  # decided at compile time
        result += tl.load(bias + row, mask=row < row_count, other=0.0).to(tl.float32)[None, :]
    within_out = (token < tokens)[:, None] & (row < row_count)[None, :]
    tl.store(out + token.to(tl.int64)[:, None] * row_count + row[None, :], result, mask=within_out)


def choose_tile(tokens: int, dtype: torch.dtype) -> tuple[int, int, int, int]:
    """(TOKENS, ROWS, GROUPS, warps), the same on every device.

    With few tokens a tile has fewer rows, which gives more programs. With the fewest tokens it also
    has a longer step, so each program requests more bytes. float32 is multiplied without matrix
    instructions, which would round it, and needs a tile and a step that fit in registers.
    """
    wide = max(16, triton.next_power_of_2(tokens))
    if dtype == torch.float32:
        return min(32, wide), 64, 1, 4
    if wide >= 128:
        return 128, 128, 2, 8
    return wide, 64, 4 if wide == 16 else 2, 4


def launch(x: Tensor, blocks: Tensor, scales: Tensor, bias: Tensor | None, out: Tensor) -> Launch:
    """The launch: one program per tile, tiles of the same rows next to each other.

    All tensors are contiguous.
    """
    (token_count, columns), row_count = x.shape, len(scales)
    tokens, rows, groups, warps = choose_tile(token_count, x.dtype)
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

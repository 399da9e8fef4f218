"""The gradient of an MXFP4 linear layer's input in Triton: dx = dy weight, by tiles.

                        columns
                      w w w w w w     one program: COLUMNS of dx for TOKENS tokens.
             rows     w w w w w w     Each step loads ROWS rows of its columns, 16 bytes and
                      w w w w w w     a scale byte per group, and decodes them to bfloat16
    tokens  d d d     o o o o o o     (exact).

The bytes of a row are contiguous along the columns, while the sum is over rows. So the tile of
weights is transposed, in registers and shared memory. It is the left operand, as in
`mxfp4_linear/prefill.py`: its columns fill a matrix instruction even if there are few tokens.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float, UInt8
from torch import Tensor

from oss_kernels.launch import Launch, dot_dtype
from oss_kernels.mxfp4.decode import weight_tile
from oss_kernels.mxfp4.reference import BLOCK
from oss_kernels.mxfp4_linear_backward.checks import check_mxfp4_linear_backward


@triton.jit(do_not_specialize=("tokens",))
def input_gradient_kernel(
    dy, blocks, scales, dx, tokens, row_count, groups,
    TOKENS: tl.constexpr, ROWS: tl.constexpr, GROUPS: tl.constexpr, DOT_DTYPE: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    column = tl.program_id(1) * 32 * GROUPS + tl.arange(0, 32 * GROUPS)
    # 64 bits: token * rows and row * groups * 16 may exceed 2^31.
    dy_rows = dy + token.to(tl.int64)[:, None] * row_count
    sums = tl.zeros((32 * GROUPS, TOKENS), tl.float32)
    for start in range(0, row_count, ROWS):
        row = start + tl.arange(0, ROWS)
        # [ROWS, 32 * GROUPS]
        weights = weight_tile(blocks, scales, row.to(tl.int64), row_count, group, groups)
        changes = tl.load(  # [TOKENS, ROWS]
            dy_rows + row[None, :],
            mask=(token < tokens)[:, None] & (row < row_count)[None, :],
            other=0.0,
        )
        sums = tl.dot(
            tl.trans(weights.to(DOT_DTYPE)),
            tl.trans(changes.to(DOT_DTYPE)),
            sums,
            input_precision="ieee",
        )
    within = (token < tokens)[:, None] & (column < groups * 32)[None, :]
    place = token.to(tl.int64)[:, None] * (groups * 32) + column[None, :]
    tl.store(dx + place, tl.trans(sums), mask=within)


def launch(dy: Tensor, blocks: Tensor, scales: Tensor, dx: Tensor) -> Launch:
    """The launch: one program per tile of dx, tiles of the same columns next to each other.

    All tensors are contiguous. float32 is multiplied without matrix instructions, which would round
    it, and needs a smaller tile.
    """
    (token_count, row_count), groups = dy.shape, scales.shape[1]
    narrow = dy.dtype == torch.bfloat16
    tokens = min(128 if narrow else 32, max(16, triton.next_power_of_2(token_count)))
    per_program = 2
    return Launch(
        input_gradient_kernel,
        (triton.cdiv(token_count, tokens), triton.cdiv(groups, per_program)),
        {
            "dy": dy,
            "blocks": blocks,
            "scales": scales,
            "dx": dx,
            "tokens": token_count,
            "row_count": row_count,
            "groups": groups,
        },
        {
            "TOKENS": tokens,
            "ROWS": 64 if narrow else 32,
            "GROUPS": per_program,
            "DOT_DTYPE": dot_dtype(dy.dtype),
        },
        num_warps=8 if tokens >= 64 else 4,
        num_stages=3,
    )


def mxfp4_linear_backward(
    dy: Float[Tensor, "token rows"],
    blocks: UInt8[Tensor, "rows groups 16"],
    scales: UInt8[Tensor, "rows groups"],
) -> Float[Tensor, "token columns"]:
    """The operation of `reference.mxfp4_linear_backward`, for float32 and bfloat16."""
    check_mxfp4_linear_backward(dy, blocks, scales)
    dx = torch.empty(len(dy), BLOCK * scales.shape[1], dtype=dy.dtype, device=dy.device)
    launch(dy.contiguous(), blocks.contiguous(), scales.contiguous(), dx)()
    return dx

"""A linear layer for a few tokens in Triton: out = x weight^T + bias + residual.

One program computes a few complete rows of the weight, for all tokens:

    weight row 0  w w w w w w w w   \\
    weight row 1  w w w w w w w w    | program 0: load once into registers; then, for each
    weight row 2  w w w w w w w w    | token, multiply by x, sum, store 4 numbers
    weight row 3  w w w w w w w w   /
    weight row 4  ...                  program 1

One token uses every weight once: two FLOP for the two bytes read, so memory is the limit. Four rows
of 2,880 bfloat16 weights are 23 KB, which a program requests together; some hundred programs keep
the memory busy. A few more tokens reuse the registers and cost little. Left out: many tokens, which
need tiles and matrix instructions; torch has them.
"""

import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from oss_kernels.checks import FLOATS, check_dtype
from oss_kernels.launch import Launch
from oss_kernels.linear import reference
from oss_kernels.linear.checks import check_linear

MAX_TOKENS = 8
"""With more tokens, torch's matrix product is used: it has matrix instructions, and this kernel
needs a multiply-add for every weight and token. The number is an estimate, not a measurement."""

TILE = (
    16_384  # weights per program: 64 per thread in 8 warps, which leaves registers for x and sums
)


@triton.jit
def linear_kernel(
    x, weight, bias, residual, out, tokens, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # 64 bits: row * columns
    column = tl.arange(0, COLUMNS)
    exists, within = row < rows, column < columns
    # [ROWS, COLUMNS]; neighboring threads read neighboring pieces of 16 bytes of a row.
    weights = tl.load(
        weight + row[:, None] * columns + column[None, :],
        mask=exists[:, None] & within[None, :],
        other=0.0,
    ).to(tl.float32)
    for token in range(tokens):
        values = tl.load(x + token * columns + column, mask=within, other=0.0).to(tl.float32)
        sums = tl.sum(weights * values[None, :], axis=1)
        if bias is not None:  # decided at compile time
            sums += tl.load(bias + row, mask=exists, other=0.0).to(tl.float32)
        place = token * rows + row
        if residual is not None:
            sums += tl.load(residual + place, mask=exists, other=0.0).to(tl.float32)
        tl.store(out + place, sums, mask=exists)  # the only rounding to out's dtype


def choose_tile(columns: int) -> tuple[int, int, int]:
    """(ROWS, COLUMNS, warps) for rows of this many columns, the same on every device."""
    padded = triton.next_power_of_2(columns)
    rows = max(1, min(16, TILE // padded))
    return rows, padded, max(1, min(16, rows * padded // 2048))


def launch(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, out: Tensor
) -> Launch:
    """The launch: one program per few rows. All tensors are contiguous."""
    (tokens, columns), rows = x.shape, len(weight)
    tile_rows, tile_columns, warps = choose_tile(columns)
    optional = {"bias": bias, "residual": residual}
    return Launch(
        linear_kernel,
        (triton.cdiv(rows, tile_rows),),
        {"x": x, "weight": weight, "out": out, "tokens": tokens, "rows": rows, "columns": columns}
        | {name: tensor for name, tensor in optional.items() if tensor is not None},
        {"ROWS": tile_rows, "COLUMNS": tile_columns}
        | {name: None for name, tensor in optional.items() if tensor is None},
        num_warps=warps,
    )


def linear(
    x: Float[Tensor, "token columns"],
    weight: Float[Tensor, "rows columns"],
    bias: Float[Tensor, "rows"] | None,
    residual: Float[Tensor, "token rows"] | None = None,
) -> Float[Tensor, "token rows"]:
    """The operation of `reference.linear`.

    Up to MAX_TOKENS tokens are computed in float32 and rounded once. More tokens are passed to the
    reference, which is torch's matrix product.
    """
    check_linear(x, weight, bias, residual)
    check_dtype("x", x, *FLOATS)
    if len(x) > MAX_TOKENS:
        return reference.linear(x, weight, bias, residual)
    out = x.new_empty(len(x), len(weight))
    bias = None if bias is None else bias.contiguous()
    residual = None if residual is None else residual.contiguous()
    launch(x.contiguous(), weight.contiguous(), bias, residual, out)()
    return out

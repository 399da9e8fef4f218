"""The cases that the linear layer is compiled and timed with: attention's projections."""

from collections.abc import Iterator

from oss_kernels.cases import Case, Make, format_token_count, nbytes
from oss_kernels.linear.kernel import launch
from oss_kernels.shapes import Shapes


def cases(shapes: Shapes, make: Make) -> Iterator[Case]:
    rows, columns = shapes.hidden, shapes.heads * shapes.head_dim
    weight, bias = make.normal(rows, columns), make.normal(rows)
    for tokens in (1, 8):
        x, residual = make.normal(tokens, columns), make.normal(tokens, rows)
        out = make.empty(tokens, rows)
        yield Case(
            f"linear {columns} to {rows}, {format_token_count(tokens)}",
            (launch(x, weight, bias, residual, out),),
            bytes=nbytes(x, weight, bias, residual, out),
            flops=2 * tokens * weight.numel(),
            needs=frozenset({"wide loads"}),
        )
    x, weight = make.normal(1, shapes.hidden), make.normal(shapes.qkv_rows, shapes.hidden)
    out = make.empty(1, shapes.qkv_rows)
    yield Case(
        f"linear {shapes.hidden} to {shapes.qkv_rows}, 1 token, neither bias nor residual",
        (launch(x, weight, None, None, out),),
        bytes=nbytes(x, weight, out),
        flops=2 * weight.numel(),
        needs=frozenset({"wide loads"}),
    )

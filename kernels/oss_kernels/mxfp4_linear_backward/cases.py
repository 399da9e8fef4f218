"""The cases that the gradient of an MXFP4 linear layer is compiled and timed with: the larger
matrix of an expert."""

from collections.abc import Iterator

import torch

from oss_kernels.cases import Case, Make, Need, nbytes
from oss_kernels.mxfp4_linear_backward.kernel import launch
from oss_kernels.shapes import Shapes


def cases(shapes: Shapes, make: Make) -> Iterator[Case]:
    rows, columns = 2 * shapes.width, shapes.hidden
    for tokens, dtype in ((16, torch.bfloat16), (256, torch.bfloat16), (256, torch.float32)):
        blocks, scales = make.mxfp4(rows, columns=columns)
        dy, dx = make.normal(tokens, rows, dtype=dtype), make.empty(tokens, columns, dtype=dtype)
        needs: set[Need] = {"subnormals"}
        if dtype == torch.bfloat16:
            needs.add("matrix instructions")
        name = str(dtype).removeprefix("torch.")
        yield Case(
            f"mxfp4_linear_backward {rows} to {columns}, {tokens} of {name}",
            (launch(dy, blocks, scales, dx),),
            bytes=nbytes(dy, blocks, scales, dx),
            flops=2 * tokens * rows * columns,
            needs=frozenset(needs),
        )

"""The cases that the MXFP4 linear layer is compiled and timed with: one expert's matrices."""

from collections.abc import Iterator

import torch

from oss_kernels.cases import Case, Make, Need, nbytes
from oss_kernels.mxfp4_linear.decode import MAX_TOKENS
from oss_kernels.mxfp4_linear.kernel import make_launches
from oss_kernels.shapes import Shapes


def cases(shapes: Shapes, make: Make) -> Iterator[Case]:
    gate_up, down = (2 * shapes.width, shapes.hidden), (shapes.hidden, shapes.width)
    for tokens, (rows, columns), dtype in (
        (1, gate_up, torch.bfloat16),
        (1, down, torch.bfloat16),
        (2, gate_up, torch.bfloat16),
        (4, gate_up, torch.bfloat16),
        (8, gate_up, torch.bfloat16),
        (16, gate_up, torch.bfloat16),
        (64, gate_up, torch.bfloat16),
        (512, gate_up, torch.bfloat16),
        (1, gate_up, torch.float32),
        (512, gate_up, torch.float32),
    ):
        blocks, scales = make.mxfp4(rows, columns=columns)
        x, bias = make.normal(tokens, columns, dtype=dtype), make.normal(rows, dtype=dtype)
        out = make.empty(tokens, rows, dtype=dtype)
        needs: set[Need] = {"subnormals"}
        if tokens <= MAX_TOKENS:
            needs |= {"wide loads", "asynchronous copies", "no lane exchanges"}
        elif dtype == torch.bfloat16:
            needs.add("matrix instructions")
        yield Case(
            f"mxfp4_linear {columns} to {rows}, {tokens} of {str(dtype).removeprefix('torch.')}",
            make_launches(x, blocks, scales, bias, out),
            bytes=nbytes(x, blocks, scales, bias, out),
            flops=2 * tokens * rows * columns,
            needs=frozenset(needs),
        )

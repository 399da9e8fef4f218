"""The cases that MXFP4's kernels are compiled and timed with: one expert's gate and up matrix."""

from collections.abc import Iterator

import torch

from oss_kernels.cases import Case, Make, Need, nbytes
from oss_kernels.mxfp4.kernel import launch_dequantize, launch_quantize
from oss_kernels.shapes import Shapes


def cases(shapes: Shapes, make: Make) -> Iterator[Case]:
    rows = 2 * shapes.width
    blocks, scales = make.mxfp4(rows, columns=shapes.hidden)
    needs = frozenset[Need]({"wide loads", "subnormals"})
    for dtype in (torch.bfloat16, torch.float32):
        out = make.empty(rows, shapes.hidden, dtype=dtype)
        yield Case(
            f"dequantize {rows} x {shapes.hidden} to {str(dtype).removeprefix('torch.')}",
            (launch_dequantize(blocks, scales, out),),
            bytes=nbytes(blocks, scales, out),
            flops=out.numel(),
            needs=needs,
        )
    weight = make.normal(rows, shapes.hidden, dtype=torch.float32)
    for rule in ("fit", "floor"):
        yield Case(
            f"quantize {rows} x {shapes.hidden}, {rule}",
            (launch_quantize(weight, blocks, scales, rule),),
            bytes=nbytes(weight, blocks, scales),
            flops=weight.numel(),
            needs=needs,
        )

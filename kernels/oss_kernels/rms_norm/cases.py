"""The cases that RMSNorm is compiled and timed with."""

from collections.abc import Iterator

from oss_kernels.cases import Case, Make, format_token_count, nbytes
from oss_kernels.rms_norm.kernel import launch
from oss_kernels.shapes import Shapes


def cases(shapes: Shapes, make: Make) -> Iterator[Case]:
    for tokens in (1, 512):
        x, out = make.normal(tokens, shapes.hidden), make.empty(tokens, shapes.hidden)
        scale = make.normal(shapes.hidden)
        yield Case(
            f"rms_norm, {format_token_count(tokens)}",
            (launch(x, scale, out, 1e-5),),
            bytes=nbytes(x, scale, out),
            flops=4 * x.numel(),
            needs=frozenset({"wide loads"}),
        )

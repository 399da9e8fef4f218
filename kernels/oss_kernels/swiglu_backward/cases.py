"""The case that the activation's gradient is compiled and timed with."""

from collections.abc import Iterator

from oss_kernels.cases import Case, Make, nbytes
from oss_kernels.shapes import Shapes
from oss_kernels.swiglu_backward.kernel import launch

ALPHA, LIMIT = 1.702, 7.0


def cases(shapes: Shapes, make: Make) -> Iterator[Case]:
    rows = 2048 * shapes.slots
    gate_up, out = (make.normal(rows, 2 * shapes.width) for _ in range(2))
    dact = make.normal(rows, shapes.width)
    yield Case(
        "swiglu_backward, 2,048 tokens",
        (launch(gate_up, dact, out, ALPHA, LIMIT),),
        bytes=nbytes(gate_up, dact, out),
        flops=20 * dact.numel(),
        needs=frozenset({"wide loads"}),
    )

"""The case that the start of a decode step is compiled and timed with."""

from collections.abc import Iterator

import torch

from oss_kernels.begin_step.kernel import launch
from oss_kernels.begin_step.reference import Cursor
from oss_kernels.cases import Case, Make, nbytes
from oss_kernels.shapes import Shapes

CAPACITY = 8192


def cases(shapes: Shapes, make: Make) -> Iterator[Case]:
    token, position, length, full, ring = (
        make.integers(0, 1, 1, dtype=torch.int32) for _ in range(5)
    )
    text = make.integers(0, 1, 1, CAPACITY, dtype=torch.int32)
    cursor = Cursor(token, position, length, full, ring, text)
    embedding = make.normal(shapes.vocab, shapes.hidden)
    cos_table, sin_table = (make.normal(CAPACITY, shapes.head_dim) for _ in range(2))
    x = make.empty(1, shapes.hidden)
    cos, sin = make.empty(1, shapes.head_dim), make.empty(1, shapes.head_dim)
    yield Case(
        "begin_step, 1 token",
        (launch(cursor, embedding, cos_table, sin_table, shapes.window, x, cos, sin),),
        bytes=2 * nbytes(x, cos, sin, token, position, length),
        flops=0,
        needs=frozenset({"wide loads"}),
    )

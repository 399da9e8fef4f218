"""The cases that the fused norm, q/k/v projection, RoPE and append are compiled and timed with."""

from collections.abc import Iterator

import torch

from oss_kernels.cases import Case, Make, nbytes
from oss_kernels.qkv_rope.kernel import launch
from oss_kernels.shapes import Shapes

CAPACITY = 4096


def cases(shapes: Shapes, make: Make) -> Iterator[Case]:
    rows, hidden, head_dim = shapes.qkv_rows, shapes.hidden, shapes.head_dim
    weight, bias, norm_scale = make.normal(rows, hidden), make.normal(rows), make.normal(hidden)
    for batch in (1, 8):
        x, q = make.normal(batch, hidden), make.empty(batch, shapes.heads, head_dim)
        cos, sin = make.normal(batch, head_dim), make.normal(batch, head_dim)
        keys = make.empty(batch, shapes.kv_heads, CAPACITY, head_dim)
        values = torch.empty_like(keys)
        at = make.integers(0, CAPACITY, batch, dtype=torch.int32)
        written = make.empty(batch, 2 * shapes.kv_heads, head_dim)
        yield Case(
            f"qkv_rope, batch of {batch}",
            (launch(x, norm_scale, 1e-5, weight, bias, cos, sin, keys, values, at, q),),
            bytes=nbytes(x, norm_scale, weight, bias, cos, sin, at, q, written),
            flops=2 * batch * weight.numel(),
            needs=frozenset({"wide loads"}),
        )

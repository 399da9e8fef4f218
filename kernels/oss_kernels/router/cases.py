"""The cases that the router is compiled and timed with."""

from collections.abc import Iterator

import torch

from oss_kernels.cases import Case, Make, format_token_count, nbytes
from oss_kernels.router.decode import make_launches
from oss_kernels.router.kernel import launch
from oss_kernels.shapes import Shapes


def cases(shapes: Shapes, make: Make) -> Iterator[Case]:
    weight, bias = make.normal(shapes.experts, shapes.hidden), make.normal(shapes.experts)
    for tokens in (1, 512):
        x = make.normal(tokens, shapes.hidden)
        ids = make.empty(tokens, shapes.slots, dtype=torch.int32)
        weights = make.empty(tokens, shapes.slots, dtype=torch.float32)
        logits = make.empty(tokens, shapes.experts, dtype=torch.float32)
        yield Case(
            f"router, {format_token_count(tokens)}",
            (launch(x, weight, bias, ids, weights, logits),),
            bytes=nbytes(x, weight, bias, ids, weights, logits),
            flops=2 * tokens * weight.numel(),
            needs=frozenset({"wide loads"}),
        )
    x, norm_scale = make.normal(1, shapes.hidden), make.normal(shapes.hidden)
    ids = make.empty(1, shapes.slots, dtype=torch.int32)
    weights = make.empty(1, shapes.slots, dtype=torch.float32)
    logits = make.empty(1, shapes.experts, dtype=torch.float32)
    arranged = make.empty(1, shapes.hidden)
    yield Case(
        "norm and router, 1 token",
        make_launches(x, norm_scale, 1e-5, weight, bias, logits, ids, weights, arranged),
        bytes=nbytes(x, norm_scale, weight, bias, logits, ids, weights, arranged),
        flops=2 * weight.numel() + 4 * x.numel(),
        needs=frozenset({"wide loads"}),
    )

"""The cases that the experts are compiled and timed with."""

from collections.abc import Iterator

import torch

from oss_kernels.cases import Case, Make, Need, format_token_count, nbytes
from oss_kernels.experts import decode, prefill
from oss_kernels.experts.grouping import make_tiles
from oss_kernels.experts.kernel import FEW
from oss_kernels.experts.weights import ExpertWeights
from oss_kernels.shapes import Shapes

ALPHA, LIMIT = 1.702, 7.0
NEEDS_OF_FEW: frozenset[Need] = frozenset(
    {"wide loads", "subnormals", "asynchronous copies", "no lane exchanges"}
)
NEEDS_OF_MANY: frozenset[Need] = frozenset({"wide loads", "subnormals", "matrix instructions"})


def cases(shapes: Shapes, make: Make) -> Iterator[Case]:
    gate_up = make.mxfp4(shapes.experts, 2 * shapes.width, columns=shapes.hidden)
    down = make.mxfp4(shapes.experts, shapes.hidden, columns=shapes.width)
    experts = ExpertWeights(
        *gate_up,
        make.normal(shapes.experts, 2 * shapes.width),
        *down,
        make.normal(shapes.experts, shapes.hidden),
    )
    of_one = nbytes(*gate_up, experts.gate_up_bias, *down, experts.down_bias) // shapes.experts
    for tokens in (1, 8, 512, 4096):
        few = tokens <= FEW
        x, out = make.normal(tokens, shapes.hidden), make.empty(tokens, shapes.hidden)
        ids = make.integers(0, shapes.experts, tokens, shapes.slots, dtype=torch.int32)
        weights = make.normal(tokens, shapes.slots, dtype=torch.float32)
        activation = make.empty(ids.numel(), shapes.width)
        if few:
            launches = decode.make_launches(x, ids, weights, experts, activation, out, ALPHA, LIMIT)
        else:
            size = prefill.tile_size(ids.numel(), shapes.experts, x.dtype)
            tiles = make_tiles(ids, shapes.experts, size)
            by_slot = make.empty(ids.numel(), shapes.hidden, dtype=torch.float32)
            launches = prefill.make_launches(
                x, weights, experts, tiles, activation, by_slot, out, ALPHA, LIMIT
            )
        used = shapes.experts * (1 - (1 - 1 / shapes.experts) ** ids.numel())
        yield Case(
            f"experts, {format_token_count(tokens)}",
            launches,
            bytes=nbytes(x, out, ids, weights) + round(used * of_one),
            flops=2 * ids.numel() * 3 * shapes.hidden * shapes.width,
            needs=NEEDS_OF_FEW if few else NEEDS_OF_MANY,
        )

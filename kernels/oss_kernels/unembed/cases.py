"""The cases that the unembedding with sampling is compiled and timed with."""

from collections.abc import Iterator

import torch

from oss_kernels.cases import Case, Make, format_token_count, nbytes
from oss_kernels.shapes import Shapes
from oss_kernels.unembed.kernel import launch


def cases(shapes: Shapes, make: Make) -> Iterator[Case]:
    weight, norm_scale = make.normal(shapes.vocab, shapes.hidden), make.normal(shapes.hidden)
    usable = make.integers(0, 2, shapes.vocab, dtype=torch.int32).bool()
    for tokens in (1, 8):
        x, seed = make.normal(tokens, shapes.hidden), make.empty(tokens, dtype=torch.int64)
        at = make.integers(0, 4096, tokens, dtype=torch.int32)
        ids = make.empty(tokens, dtype=torch.int64)
        logprobs = make.empty(tokens, dtype=torch.float32)
        yield Case(
            f"unembed, {format_token_count(tokens)}",
            launch(x, norm_scale, 1e-5, weight, 1.0, seed, at, usable, ids, logprobs),
            bytes=nbytes(x, norm_scale, weight, seed, at, usable, ids, logprobs),
            flops=2 * tokens * weight.numel(),
            needs=frozenset({"wide loads", "matrix instructions"}),
        )

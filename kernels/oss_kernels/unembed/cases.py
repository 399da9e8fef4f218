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
        temperatures = make.normal(tokens, dtype=torch.float32)
        at = make.integers(0, 4096, tokens, dtype=torch.int32)
        ids = make.empty(tokens, dtype=torch.int64)
        logprobs = make.empty(tokens, dtype=torch.float32)
        yield Case(
            f"unembed, {format_token_count(tokens)}",
            launch(x, norm_scale, 1e-5, weight, temperatures, seed, at, usable, ids, logprobs),
            bytes=nbytes(x, norm_scale, weight, seed, at, usable, ids, logprobs),
            flops=2 * tokens * weight.numel(),
            needs=frozenset({"wide loads", "matrix instructions", "asynchronous copies"}),
        )
    x, logits = make.normal(1, shapes.hidden), make.empty(1, shapes.vocab, dtype=torch.float32)
    seed, at = make.empty(1, dtype=torch.int64), make.integers(0, 4096, 1, dtype=torch.int32)
    temperatures = make.normal(1, dtype=torch.float32)
    ids, logprobs = make.empty(1, dtype=torch.int64), make.empty(1, dtype=torch.float32)
    ranked = make.empty(1, 20, dtype=torch.int64), make.empty(1, 20, dtype=torch.float32)
    yield Case(
        "unembed with 20 alternatives, 1 token",
        launch(
            x, norm_scale, 1e-5, weight, temperatures, seed, at, None, ids, logprobs, logits, ranked
        ),
        bytes=nbytes(x, norm_scale, weight, seed, at, temperatures, ids, logprobs, logits, *ranked),
        flops=2 * weight.numel(),
        needs=frozenset({"wide loads", "matrix instructions", "asynchronous copies"}),
    )

"""Checks of the unembedding's arguments."""

import torch
from torch import Tensor

from oss_kernels.checks import (
    FLOATS,
    INTEGERS,
    check_axes,
    check_dtype,
    check_no_gradient,
    check_shape,
)


def check_unembed(
    x: Tensor, norm_scale: Tensor, weight: Tensor, seed: Tensor, at: Tensor, usable: Tensor | None
) -> None:
    """Raises ValueError if shapes or dtypes do not match, or if a gradient is needed."""
    tokens, hidden = check_axes("x", x, "token hidden")
    vocab, _ = check_axes("weight", weight, "vocab hidden")
    check_shape("norm_scale", norm_scale, hidden)
    check_shape("weight", weight, vocab, hidden)
    check_shape("seed", seed, tokens)
    check_shape("usable", usable, vocab)
    if at.shape not in ((), (1,), (tokens,)):
        raise ValueError(f"at has the shape {list(at.shape)}; it must be [] or {[tokens]}")
    for name, tensor in (("x", x), ("norm_scale", norm_scale), ("weight", weight)):
        check_dtype(name, tensor, *FLOATS)
    check_dtype("seed", seed, *INTEGERS)
    check_dtype("at", at, *INTEGERS)
    check_dtype("usable", usable, torch.bool)
    check_no_gradient(x, norm_scale, weight)

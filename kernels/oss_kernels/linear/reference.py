"""A linear layer in plain torch, with an optional residual for attention's output projection."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def linear(
    x: Float[Tensor, "token columns"],
    weight: Float[Tensor, "rows columns"],
    bias: Float[Tensor, "rows"] | None,
    residual: Float[Tensor, "token rows"] | None = None,
) -> Float[Tensor, "token rows"]:
    """x weight^T + bias, rounded to x's dtype, plus the residual, rounded again."""
    out = F.linear(x, weight, bias)
    return out if residual is None else residual + out

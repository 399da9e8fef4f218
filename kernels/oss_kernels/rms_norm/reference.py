"""RMSNorm in plain torch (arXiv 1910.07467), rounding once at the end as gpt-oss does."""

import torch
from jaxtyping import Float
from torch import Tensor


def rms_norm(
    x: Float[Tensor, "token hidden"], scale: Float[Tensor, "hidden"], eps: float
) -> Float[Tensor, "token hidden"]:
    """x / sqrt(mean(x^2) + eps) * scale in float32 (float64 for float64 x), then x's dtype."""
    wide = x.double() if x.dtype == torch.float64 else x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * scale).to(x.dtype)

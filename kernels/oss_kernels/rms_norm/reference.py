"""RMSNorm in plain torch (arXiv 1910.07467, with gpt-oss's order of rounding)."""

import torch
from jaxtyping import Float
from torch import Tensor


def rms_norm(
    x: Float[Tensor, "token hidden"], scale: Float[Tensor, "hidden"], eps: float
) -> Float[Tensor, "token hidden"]:
    """x / sqrt(mean(x^2) + eps) * scale; all in float32 (float64 for float64 x), then rounded."""
    wide = x.double() if x.dtype == torch.float64 else x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * scale).to(x.dtype)

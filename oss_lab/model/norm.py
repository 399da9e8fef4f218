"""RMSNorm: divide by the root mean square, multiply by a learned scale.

The whole computation is in float32 and only the result is rounded. Llama-style norms round before
the scale, which is a different function in bfloat16.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * scale, over the last axis."""

    def __init__(self, hidden: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(hidden))

    def forward(self, x: Float[Tensor, "*axes hidden"]) -> Float[Tensor, "*axes hidden"]:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide * self.scale.float()).to(x.dtype)

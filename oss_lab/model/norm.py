"""RMSNorm: scale every vector to root mean square one, then multiply by learned numbers.

Each layer normalizes a copy of the residual stream before attention and before the experts. So the
magnitude of their input does not depend on how large the stream has become.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn


def rms_norm(
    x: Float[Tensor, "*axes hidden"], scale: Float[Tensor, "hidden"], eps: float
) -> Float[Tensor, "*axes hidden"]:
    """x / sqrt(mean(x²) + eps) * scale, with the mean over the last axis.

    `eps` keeps the result finite: a vector of zeros stays zero. All steps are in float32, and only
    the result is rounded to x's dtype. Norms of Llama models round before the multiplication by
    `scale`; in bfloat16 that gives other numbers.
    """
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (wide * scale.float()).to(x.dtype)


Normalize = Callable[[Tensor, Tensor, float], Tensor]
"""`rms_norm`, or another function of the same arguments."""


class RMSNorm(nn.Module):
    """`rms_norm` with a learned scale."""

    def __init__(self, hidden: int, eps: float, rms_norm: Normalize = rms_norm) -> None:
        super().__init__()
        self.eps, self.rms_norm = eps, rms_norm
        self.scale = nn.Parameter(torch.ones(hidden))

    def forward(self, x: Float[Tensor, "*axes hidden"]) -> Float[Tensor, "*axes hidden"]:
        return self.rms_norm(x, self.scale, self.eps)

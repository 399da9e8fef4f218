"""Rotary position embedding stretched by YaRN, "NTK by parts" (arXiv 2309.00071, section 3).

A query and a key are rotated by angles proportional to their position, so that their product
depends on the distance. Frequencies that turn often within the initial context are kept, those
that turn less than once are divided by the scaling factor, and a linear ramp joins the two; its
limits are real numbers, not rounded to whole dimensions. Attention logits grow by the square of
the concentration, at every length: YaRN is never switched off for short prompts.

The two halves of a head are rotated against each other (not neighboring pairs).
"""

import math
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_lab.config import ModelConfig

Rotation = tuple[Float[Tensor, "batch 1 seq head_dim"], Float[Tensor, "batch 1 seq head_dim"]]


def ramp_limits(config: ModelConfig) -> tuple[float, float]:
    """The pairs (low, high) between which extrapolation turns into interpolation.

    Kept within the head where a short initial context would put them outside.
    """

    def dimension(rotations: float) -> float:
        wavelengths = config.initial_context_length / (rotations * 2 * math.pi)
        return config.head_dim / 2 * math.log(wavelengths) / math.log(config.rope_theta)

    low, high = dimension(config.rope_ntk_beta), dimension(config.rope_ntk_alpha)
    return max(low, 0.0), min(high, config.head_dim - 1.0)


def concentration(config: ModelConfig) -> float:
    """The factor on both cos and sin: 0.1 ln(scaling factor) + 1; 1 without scaling."""
    return 0.1 * math.log(max(config.rope_scaling_factor, 1.0)) + 1.0


@lru_cache
def inverse_frequencies(
    config: ModelConfig, device: torch.device | None = None
) -> Float[Tensor, "half"]:
    """Radians per position for each of the head_dim / 2 rotated pairs, in float32.

    Computed once per device and shared: do not write into it.
    """
    half = config.head_dim // 2
    pair = torch.arange(half, dtype=torch.float32)
    frequency = config.rope_theta ** (pair / half)
    kept = 1.0 / frequency
    if config.rope_scaling_factor <= 1.0:
        return kept.to(device)
    low, high = ramp_limits(config)
    ramp = ((pair - low) / (high - low)).clamp(0, 1)
    interpolated = kept / config.rope_scaling_factor
    return (kept * (1 - ramp) + interpolated * ramp).to(device)


def rotation(
    config: ModelConfig, positions: Int[Tensor, "batch seq"], dtype: torch.dtype
) -> Rotation:
    """(cos, cos) and (-sin, sin) for the two halves of a head at these positions.

    Computed in float32, then rounded to `dtype`.
    """
    frequencies = inverse_frequencies(config, positions.device)
    angles = positions[:, None, :, None].float() * frequencies
    scale = concentration(config)
    cos, sin = angles.cos() * scale, angles.sin() * scale
    return torch.cat((cos, cos), dim=-1).to(dtype), torch.cat((-sin, sin), dim=-1).to(dtype)


def rotate(
    x: Float[Tensor, "batch head seq head_dim"], by: Rotation
) -> Float[Tensor, "batch head seq head_dim"]:
    """Turn a head's halves (a, b) into (a cos - b sin, b cos + a sin), angles by position."""
    cos, sin = by
    swapped = x.roll(x.shape[-1] // 2, dims=-1)
    return x * cos + swapped * sin

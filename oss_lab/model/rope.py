"""How attention knows positions: RoPE, with frequencies stretched by YaRN.

RoPE (rotary position embedding) rotates queries and keys by angles proportional to their positions.
The product of a rotated query and a rotated key then depends on the distance between the two. A
head has head_dim / 2 pairs of dimensions, and each pair turns with its own frequency. Dimension i
is paired with dimension i + head_dim / 2, not with its neighbor.

YaRN ("NTK by parts", arXiv 2309.00071, section 3) extends the context. The model is trained on
texts of the initial context (4,096 tokens in gpt-oss), and can then read texts that are longer by a
scaling factor (32):

- A pair that turns many times within the initial context keeps its frequency: it measures short
  distances, which do not change.
- A pair that does not complete one turn within it is slowed down by the scaling factor. Even in the
  longest text, its angles stay in the range that training covered.
- In between, a linear ramp blends the two.

YaRN also multiplies cos and sin by a constant, the concentration. Query and key are both
multiplied by it, so attention scores grow by its square. All of this applies at every length, to
short prompts too.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_lab.config import ModelConfig


def rotate(
    x: Float[Tensor, "batch head seq head_dim"],
    cos: Float[Tensor, "rows 1 seq head_dim"],
    sin: Float[Tensor, "rows 1 seq head_dim"],
) -> Float[Tensor, "batch head seq head_dim"]:
    """Rotate the halves (a, b) of every head to (a cos - b sin, b cos + a sin).

    `cos` and `sin` come from `rotation`, with the two halves side by side: (cos, cos) and
    (-sin, sin). At position 0 nothing turns; x is only multiplied by the concentration.
    """
    swapped = x.roll(x.shape[-1] // 2, dims=-1)  # (b, a)
    return x * cos + swapped * sin


def yarn_frequencies(
    head_dim: int, theta: float, factor: float, low: float, high: float
) -> Float[Tensor, "half"]:
    """Radians per position for each of the head_dim / 2 pairs, in float32.

    RoPE's frequency of pair i is f = theta^(-2i / head_dim). YaRN keeps f up to pair `low`, takes
    f / factor from pair `high` on, and blends the two linearly in between. A `factor` of 1 or less
    is plain RoPE.
    """
    half = head_dim // 2
    pair = torch.arange(half, dtype=torch.float32)
    unscaled = 1.0 / theta ** (pair / half)
    if factor <= 1.0:
        return unscaled
    ramp = ((pair - low) / (high - low)).clamp(0, 1)
    return unscaled * (1 - ramp) + unscaled / factor * ramp


def yarn_concentration(factor: float) -> float:
    """The number that multiplies cos and sin: 0.1 ln(factor) + 1, or 1 without scaling."""
    return 0.1 * math.log(max(factor, 1.0)) + 1.0


Frequencies = Callable[[int, float, float, float, float], Tensor]
"""`yarn_frequencies`, or another function of the same arguments."""
Concentration = Callable[[float], float]
"""`yarn_concentration`, or another function of the same arguments."""


def rotation(
    config: ModelConfig,
    positions: Int[Tensor, "rows seq"],
    dtype: torch.dtype,
    yarn_frequencies: Frequencies = yarn_frequencies,
    yarn_concentration: Concentration = yarn_concentration,
) -> tuple[Float[Tensor, "rows 1 seq head_dim"], Float[Tensor, "rows 1 seq head_dim"]]:
    """(cos, cos) and (-sin, sin) of the angles at these positions, for `rotate`.

    Computed in float32, then rounded to `dtype`.
    """
    frequencies = inverse_frequencies(config, positions.device, yarn_frequencies)
    angles = positions[:, None, :, None].float() * frequencies
    scale = yarn_concentration(config.rope_scaling_factor)
    cos, sin = angles.cos() * scale, angles.sin() * scale
    return torch.cat((cos, cos), dim=-1).to(dtype), torch.cat((-sin, sin), dim=-1).to(dtype)


@lru_cache
def inverse_frequencies(
    config: ModelConfig,
    device: torch.device | None = None,
    yarn_frequencies: Frequencies = yarn_frequencies,
) -> Float[Tensor, "half"]:
    """`yarn_frequencies` of a model, computed once per device. Do not write into the result."""
    frequencies = yarn_frequencies(
        config.head_dim, config.rope_theta, config.rope_scaling_factor, *ramp_limits(config)
    )
    return frequencies.to(device)


def ramp_limits(config: ModelConfig) -> tuple[float, float]:
    """The pairs (low, high) between which YaRN blends. They may be fractions.

    They are limited to 0 ... head_dim - 1, which matters only for an initial context below about
    200 tokens.
    """

    def pair_with(turns: float) -> float:
        """The pair that turns this many times within the initial context."""
        tokens_per_radian = config.initial_context_length / (turns * 2 * math.pi)
        return config.head_dim / 2 * math.log(tokens_per_radian) / math.log(config.rope_theta)

    low, high = pair_with(config.rope_ntk_beta), pair_with(config.rope_ntk_alpha)
    return max(low, 0.0), min(high, config.head_dim - 1.0)

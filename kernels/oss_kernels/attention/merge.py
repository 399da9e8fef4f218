"""Combine attention over several spans of keys into the result over all keys."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Part = tuple[Float[Tensor, "batch head seq head_dim"], Float[Tensor, "batch head seq"]]


def merge(parts: Sequence[Part]) -> Part:
    """(z, lse) over the keys of all parts, from the (z, lse) of each. Needs at least one part.

    z = sum of z_s · e^(lse_s - lse), and lse = log(sum of e^lse_s). The softmax contains the sink
    once: compute one part with the sinks and the others with sinks of -inf. A query for which every
    lse_s is -inf has z = 0 and lse = -inf.

    Computed in float32, or float64 for float64 parts. z has the parts' dtype; lse is not rounded.
    """
    first = parts[0][0]
    wide = torch.float64 if first.dtype == torch.float64 else torch.float32
    lse = torch.stack([part_lse.to(wide) for _, part_lse in parts]).logsumexp(0)
    base = lse.masked_fill(lse.isneginf(), 0)  # -inf - -inf would be NaN
    z = torch.zeros_like(first, dtype=wide)
    for part_z, part_lse in parts:
        z += part_z.to(wide) * (part_lse.to(wide) - base).exp()[..., None]
    return z.to(first.dtype), lse

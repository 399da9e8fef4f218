"""The loss: nats per learned token, without the logits of a whole batch in memory.

Only tokens that count get logits, a piece at a time, and the backward pass computes those of a
piece again. A batch of 20b would otherwise hold 201,088 numbers for every token.
"""

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

PIECE = 2**25  # logits computed at a time


def sum_nats(
    hidden: Float[Tensor, "row seq hidden"],
    unembedding: nn.Linear,
    targets: Int[Tensor, "row seq"],
    weights: Float[Tensor, "row seq"],
) -> Float[Tensor, ""]:
    """The cross-entropy of each target times its weight, summed, in float32.

    `hidden` is after the norm. Targets of weight 0 cost nothing.
    """
    tokens = max(1, PIECE // unembedding.out_features)
    total = torch.zeros((), device=hidden.device)
    counted = weights != 0
    found = (each[counted].split(tokens) for each in (hidden, targets, weights))
    for x, wanted, weight in zip(*found, strict=True):
        nats = checkpoint(
            _sum_piece, x, unembedding, wanted, weight,
            use_reentrant=False, preserve_rng_state=False,
        )  # fmt: skip
        total = total + cast(Tensor, nats)
    return total


def _sum_piece(x: Tensor, unembedding: nn.Linear, targets: Tensor, weights: Tensor) -> Tensor:
    return F.cross_entropy(unembedding(x).float(), targets, reduction="none") @ weights

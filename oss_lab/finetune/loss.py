"""The loss: nats per learned token, without the logits of a whole batch in memory.

Only tokens that count get logits, a piece at a time, and the backward pass computes those of a
piece again. A batch of 20b would otherwise hold 201,088 numbers for every token.
"""

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

PIECE = 2**25  # logits computed at a time


def sum_nats(
    hidden: Float[Tensor, "row seq hidden"],
    unembedding: nn.Linear,
    targets: Int[Tensor, "row seq"],
    learned: Bool[Tensor, "row seq"],
) -> Float[Tensor, ""]:
    """The cross-entropy of the learned targets, summed, in float32; `hidden` is after the norm."""
    tokens = max(1, PIECE // unembedding.out_features)
    total = torch.zeros((), device=hidden.device)
    pieces = zip(hidden[learned].split(tokens), targets[learned].split(tokens), strict=True)
    for x, wanted in pieces:
        nats = checkpoint(
            _sum_piece, x, unembedding, wanted, use_reentrant=False, preserve_rng_state=False
        )
        total = total + cast(Tensor, nats)
    return total


def _sum_piece(x: Tensor, unembedding: nn.Linear, targets: Tensor) -> Tensor:
    return F.cross_entropy(unembedding(x).float(), targets, reduction="sum")

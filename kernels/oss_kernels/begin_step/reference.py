"""The start of a decode step in plain torch: embedding, rotation and places in the cache."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Cursor:
    """Where each row of a batch is in its text, on the device.

    Attributes:
        tokens: the id to read next.
        positions: its position in the text; every step adds one.
        lengths: tokens in the cache after this step.
        full_slots, ring_slots: where its key goes in a layer that keeps every token, and in one
            that keeps the last `window`.
        text: the ids that were read, by position.
    """

    tokens: Int[Tensor, "batch"]
    positions: Int[Tensor, "batch"]
    lengths: Int[Tensor, "batch"]
    full_slots: Int[Tensor, "batch"]
    ring_slots: Int[Tensor, "batch"]
    text: Int[Tensor, "batch capacity"]


def begin_step(
    cursor: Cursor,
    embedding: Float[Tensor, "vocab hidden"],
    cos_table: Float[Tensor, "capacity head_dim"],
    sin_table: Float[Tensor, "capacity head_dim"],
    window: int,
) -> tuple[
    Float[Tensor, "batch hidden"], Float[Tensor, "batch head_dim"], Float[Tensor, "batch head_dim"]
]:
    """(x, cos, sin) of each row's next token, and its cursor moved on by one token, in place.

    Positions are from 0 to capacity - 1.
    """
    at = cursor.positions.long()
    cursor.text[torch.arange(len(at)), at] = cursor.tokens.to(cursor.text.dtype)
    cursor.full_slots.copy_(at)
    cursor.ring_slots.copy_(at % window)
    cursor.lengths.copy_(at + 1)
    cursor.positions.add_(1)
    return embedding[cursor.tokens], cos_table[at], sin_table[at]

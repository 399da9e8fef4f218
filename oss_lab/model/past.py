"""What the forward needs to know of earlier tokens: where they end, and their keys and values.

An engine keeps the past (`oss_lab/engine/cache.py`); a sequence from its beginning has none. Keys
come in spans of neighboring slots, since a fork shares the keys of its parent and adds its own.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

Keys = Float[Tensor, "row kv_head key head_dim"]


class Span(NamedTuple):
    """Keys and values of neighboring slots, for some rows of the batch.

    Attributes:
        first, last: these rows of the batch, last excluded.
        keys, values: one row for each of them, or a single row that they share.
        later: slots between the end of this span and the end of the new tokens.
    """

    first: int
    last: int
    keys: Keys
    values: Keys
    later: int = 0


class Past(Protocol):
    """The tokens before the new ones, for every row of a batch."""

    @property
    def is_padded(self) -> bool:
        """Whether some of the spans' keys may be padding, at negative positions."""
        ...

    def positions(self, seq: int, device: torch.device) -> Int[Tensor, "rows seq"]:
        """Positions of the next `seq` tokens; rows is 1 if all rows have the same. Negative where
        a row has padding."""
        ...

    def slots(self, seq: int) -> int:
        """Key slots of the longest row, `seq` new tokens included."""
        ...

    def extend(self, layer: int, k: Keys, v: Keys, reach: int) -> Sequence[Span]:
        """Store the new keys and values of a layer; the spans of the last `reach` slots."""
        ...

    def advance(self, seq: int) -> None:
        """Make the `seq` new tokens part of the past: the forward has succeeded."""
        ...


class Beginning:
    """No past: the tokens are whole sequences."""

    is_padded = False

    def positions(self, seq: int, device: torch.device) -> Int[Tensor, "1 seq"]:
        return torch.arange(seq, device=device)[None]

    def slots(self, seq: int) -> int:
        return seq

    def extend(self, layer: int, k: Keys, v: Keys, reach: int) -> Sequence[Span]:
        return (Span(0, len(k), k, v),)

    def advance(self, seq: int) -> None:
        """There is nothing to keep."""

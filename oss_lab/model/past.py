"""What the forward pass needs from earlier tokens: their positions, keys and values.

A token's keys and values do not change when more tokens follow. An engine therefore stores them
between forward passes, in the KV cache (`oss_lab/engine/cache.py`), and the model computes only the
new tokens. Without a past, the tokens are whole sequences that start at position 0.

Keys and values arrive in spans, pieces of neighboring tokens. Usually there is one span. There are
more when a cache is forked, to continue one beginning in several ways: a fork reads its parent's
keys as one span and its own as another, so nothing is copied.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

Keys = Float[Tensor, "rows kv_head key head_dim"]


class Span(NamedTuple):
    """Keys and values of neighboring tokens, for some rows of the batch.

    Attributes:
        first, last: the rows of the batch that read them are first ... last - 1.
        keys, values: one row for each of these rows, or a single row that they share.
        later: how many keys come after this span.
    """

    first: int
    last: int
    keys: Keys
    values: Keys
    later: int = 0

    @property
    def rows(self) -> slice:
        """The rows of the batch that read this span."""
        return slice(self.first, self.last)

    def columns(self, keys: int) -> slice:
        """The columns of this span in a table of the last `keys` keys."""
        end = keys - self.later
        return slice(end - self.keys.shape[2], end)


class Past(Protocol):
    """The tokens before the new ones, for every row of a batch."""

    @property
    def is_padded(self) -> bool:
        """Whether some keys may be padding, at negative positions."""
        ...

    @property
    def samples(self) -> Int[Tensor, "rows seq"] | None:
        """A number for each new token, the same for the tokens of one text; None if every row is
        one text. A token sees only the keys of its text. Needs whole rows, without earlier tokens.
        """
        ...

    def positions(self, seq: int, device: torch.device) -> Int[Tensor, "rows seq"]:
        """Positions of the next `seq` tokens; one row if all rows have the same positions.

        Padding on the left of a shorter row has negative positions.
        """
        ...

    def count_slots(self, seq: int) -> int:
        """Number of keys in the longest row, `seq` new tokens and padding included."""
        ...

    def extend(self, layer: int, k: Keys, v: Keys, newest: int) -> Sequence[Span]:
        """Store a layer's new keys and values; return the spans with its last `newest` keys."""
        ...

    def advance(self, seq: int) -> None:
        """Count `seq` new tokens as past. Called at the end of a successful forward pass."""
        ...


class NoPast:
    """An empty past, for whole sequences. It stores nothing."""

    is_padded, samples = False, None

    def positions(self, seq: int, device: torch.device) -> Int[Tensor, "1 seq"]:
        return torch.arange(seq, device=device)[None]

    def count_slots(self, seq: int) -> int:
        return seq

    def extend(self, layer: int, k: Keys, v: Keys, newest: int) -> Sequence[Span]:
        return (Span(0, len(k), k, v),)

    def advance(self, seq: int) -> None:
        """Nothing to do."""

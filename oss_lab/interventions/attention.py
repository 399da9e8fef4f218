"""Heads, their sinks, and which keys they may see."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from oss_lab.interventions.base import Intervention, Place
from oss_lab.token_labels import TokenLabel, on_channels


@dataclass(frozen=True, kw_only=True)
class ScaleHead(Intervention):
    """Multiply what a head gathered; by=0 ablates it."""

    head: int
    by: float = 0.0
    WRITES: ClassVar[str] = "attn.z"

    def change(self, x: Tensor, at: Place) -> Tensor:
        factor = torch.ones(x.shape[1:3], dtype=x.dtype, device=x.device)
        factor[self.head, at.rows(self.positions)] = self.by
        return x * factor[:, :, None]


@dataclass(frozen=True, kw_only=True)
class SetSink(Intervention):
    """Give a sink another logit; to=-inf removes it, and its head spends all on tokens."""

    to: float
    head: int | None = None
    WRITES: ClassVar[str] = "attn.sink"
    BY_POSITION: ClassVar[bool] = False

    def change(self, x: Tensor, at: Place) -> Tensor:
        changed = x.clone()
        changed[slice(None) if self.head is None else self.head] = self.to
        return changed


@dataclass(frozen=True, kw_only=True)
class ShiftSink(Intervention):
    """Add to a sink's logit: log(2) doubles what it weighs against the tokens."""

    by: float
    head: int | None = None
    WRITES: ClassVar[str] = "attn.sink"
    BY_POSITION: ClassVar[bool] = False

    def change(self, x: Tensor, at: Place) -> Tensor:
        changed = x.clone()
        changed[slice(None) if self.head is None else self.head] += self.by
        return changed


@dataclass(frozen=True, kw_only=True)
class HideKeys(Intervention):
    """Let tokens from `first_query` on not see the keys at these positions, in every head.

    With the positions of a channel, what is written later cannot look at it; see `hide_channel`.
    """

    keys: tuple[int, ...]
    first_query: int
    WRITES: ClassVar[str] = "attn.scores"
    BY_POSITION: ClassVar[bool] = False

    @property
    def counts(self) -> bool:
        return True

    def change(self, x: Tensor, at: Place) -> Tensor:
        first_key = at.first_key(x.shape[-1])
        hidden = torch.zeros(x.shape[-2:], dtype=torch.bool, device=x.device)
        columns = [key - first_key for key in self.keys if 0 <= key - first_key < x.shape[-1]]
        hidden[:, columns] = True
        hidden &= (at.positions >= self.first_query)[:, None]
        return x.masked_fill(hidden, -torch.inf)


def hide_channel(tokens: Sequence[TokenLabel], channel: str, layer: int | None = None) -> HideKeys:
    """Let nothing that comes after the last message on this channel see that channel.

    Raises:
        LabError: no token is on it.
    """
    keys = on_channels(tokens, [channel])
    return HideKeys(layer=layer, keys=tuple(keys), first_query=keys[-1] + 1)

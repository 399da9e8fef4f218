"""Heads, their sinks, and which keys they may see."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.errors import LabError
from oss_lab.hooks.interventions.base import Intervention, Place
from oss_lab.record.token_labels import TokenLabel, on_channels

REMOVED = -1e4
"""The logit of a removed sink: beside any score its share rounds to 0. It is finite because a row
of padding sees no key; without a sink it would have nothing to share, and hand on NaN."""


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

    def check(self, config: ModelConfig) -> None:
        super().check(config)
        below_infinity(self, self.to)

    def change(self, x: Tensor, at: Place) -> Tensor:
        changed = x.clone()
        changed[slice(None) if self.head is None else self.head] = max(self.to, REMOVED)
        return changed


@dataclass(frozen=True, kw_only=True)
class ShiftSink(Intervention):
    """Add to a sink's logit: log(2) doubles what it weighs against the tokens."""

    by: float
    head: int | None = None
    WRITES: ClassVar[str] = "attn.sink"
    BY_POSITION: ClassVar[bool] = False

    def check(self, config: ModelConfig) -> None:
        super().check(config)
        below_infinity(self, self.by)

    def change(self, x: Tensor, at: Place) -> Tensor:
        changed = x.clone()
        changed[slice(None) if self.head is None else self.head] += self.by
        return changed.clamp(min=REMOVED)


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


@dataclass(frozen=True, kw_only=True)
class NarrowWindow(Intervention):
    """Let each token see its own and the `keys` - 1 keys before it only, in every head.

    With the model's sliding window, it cuts a full layer down to a sliding one.
    """

    keys: int
    WRITES: ClassVar[str] = "attn.scores"
    BY_POSITION: ClassVar[bool] = False

    def check(self, config: ModelConfig) -> None:
        super().check(config)
        if self.keys < 1:
            raise LabError(f"{self}: a token sees its own key at least; give 1 or more keys")

    def change(self, x: Tensor, at: Place) -> Tensor:
        seq, keys = x.shape[-2:]
        key = torch.arange(keys, device=x.device)
        query = torch.arange(keys - seq, keys, device=x.device)
        return x.masked_fill(query[:, None] - key >= self.keys, -torch.inf)


def hide_channel(tokens: Sequence[TokenLabel], channel: str, layer: int | None = None) -> HideKeys:
    """Let nothing that comes after the last message on this channel see that channel.

    Raises:
        LabError: no token is on it.
    """
    keys = on_channels(tokens, [channel])
    return HideKeys(layer=layer, keys=tuple(keys), first_query=keys[-1] + 1)


def below_infinity(intervention: Intervention, logit: float) -> None:
    """Raise LabError for a sink that would take everything, or that is no number."""
    if not logit < math.inf:
        raise LabError(f"{intervention}: a sink's logit is a number, or -inf to remove it")

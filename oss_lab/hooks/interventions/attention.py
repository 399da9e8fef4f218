"""Heads, their sinks, and which keys they may see."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from oss_lab.errors import LabError
from oss_lab.hooks.interventions.at import At
from oss_lab.hooks.interventions.base import Intervention, among
from oss_lab.hooks.interventions.fields import (
    FINITE,
    POSITION,
    POSITIONS,
    REQUIRED,
    SINK,
    WHICH,
    WIDTH,
    Integers,
    Which,
)

if TYPE_CHECKING:
    from oss_lab.record.token_labels import TokenLabel

REMOVED = -1e4
"""The logit of a removed sink: next to any score, its share rounds to 0. It is finite because a
padding token sees no key; without a sink it would have nothing to share, and return NaN."""


@dataclass(frozen=True, kw_only=True)
class AblateHead(Intervention):
    """Set what a head gathered to 0."""

    head: Which = field(default=REQUIRED, metadata=WHICH)
    WRITES: ClassVar[str] = "attn.z"

    def change(
        self, x: Float[Tensor, "row head seq head_dim"], at: At
    ) -> Float[Tensor, "row head seq head_dim"]:
        return x.masked_fill(_at_heads(x, self.head, self.selected(at)), 0)


@dataclass(frozen=True, kw_only=True)
class ScaleHead(Intervention):
    """Multiply what a head gathered."""

    head: Which = field(default=REQUIRED, metadata=WHICH)
    by: float = field(default=REQUIRED, metadata=FINITE)
    WRITES: ClassVar[str] = "attn.z"

    def change(
        self, x: Float[Tensor, "row head seq head_dim"], at: At
    ) -> Float[Tensor, "row head seq head_dim"]:
        return torch.where(_at_heads(x, self.head, self.selected(at)), x * self.by, x)


def _at_heads(
    x: Float[Tensor, "row head seq head_dim"], heads: Which, selected: Bool[Tensor, "row seq"]
) -> Bool[Tensor, "row head seq 1"]:
    chosen = among(heads, torch.arange(x.shape[1], device=x.device))
    return chosen[:, None, None] & selected[:, None, :, None]


@dataclass(frozen=True, kw_only=True)
class RemoveSink(Intervention):
    """Remove a head's sink: the head spends its whole attention on tokens."""

    head: Which = field(default=REQUIRED, metadata=WHICH)
    WRITES: ClassVar[str] = "attn.sink"
    BY_POSITION: ClassVar[bool] = False

    def change(self, x: Float[Tensor, "*row head"], at: At) -> Float[Tensor, "*row head"]:
        return x.masked_fill(_sinks(x, self.head), REMOVED)


@dataclass(frozen=True, kw_only=True)
class SetSink(Intervention):
    """Give a head's sink another logit; to=-inf removes it, as `RemoveSink` does."""

    head: Which = field(default=REQUIRED, metadata=WHICH)
    to: float = field(default=REQUIRED, metadata=SINK)
    WRITES: ClassVar[str] = "attn.sink"
    BY_POSITION: ClassVar[bool] = False

    def change(self, x: Float[Tensor, "*row head"], at: At) -> Float[Tensor, "*row head"]:
        return x.masked_fill(_sinks(x, self.head), max(self.to, REMOVED))


@dataclass(frozen=True, kw_only=True)
class ShiftSink(Intervention):
    """Add to a sink's logit: log(2) doubles its weight against the tokens; -inf removes it."""

    head: Which = field(default=REQUIRED, metadata=WHICH)
    by: float = field(default=REQUIRED, metadata=SINK)
    WRITES: ClassVar[str] = "attn.sink"
    BY_POSITION: ClassVar[bool] = False

    def change(self, x: Float[Tensor, "*row head"], at: At) -> Float[Tensor, "*row head"]:
        return torch.where(_sinks(x, self.head), (x + self.by).clamp(min=REMOVED), x)


def _sinks(x: Float[Tensor, "*row head"], heads: Which) -> Bool[Tensor, "head"]:
    return among(heads, torch.arange(x.shape[-1], device=x.device))


@dataclass(frozen=True, kw_only=True)
class HideKeys(Intervention):
    """Hide the keys at these positions from tokens at `first_query` and later, in every head.

    With the positions of a channel, later tokens cannot attend to it; see `hide_channel`.
    """

    keys: Integers = field(default=REQUIRED, metadata=POSITIONS)
    first_query: int = field(default=REQUIRED, metadata=POSITION)
    WRITES: ClassVar[str] = "attn.scores"
    BY_POSITION: ClassVar[bool] = False

    def change(
        self, x: Float[Tensor, "row head seq key"], at: At
    ) -> Float[Tensor, "row head seq key"]:
        keys = among(cast("tuple[int, ...]", self.keys), at.key_positions(x.shape[-1]))
        queries = at.positions >= self.first_query
        return x.masked_fill((queries[:, :, None] & keys[:, None])[:, None], -torch.inf)


@dataclass(frozen=True, kw_only=True)
class NarrowWindow(Intervention):
    """Let each token see only its own key and the `keys` - 1 before it, in every head.

    With the model's sliding window, it turns a full layer into a sliding one.
    """

    keys: int = field(default=REQUIRED, metadata=WIDTH)
    WRITES: ClassVar[str] = "attn.scores"
    BY_POSITION: ClassVar[bool] = False

    def change(
        self, x: Float[Tensor, "row head seq key"], at: At
    ) -> Float[Tensor, "row head seq key"]:
        queries, keys = at.positions[:, :, None], at.key_positions(x.shape[-1])[:, None]
        too_far = (queries - keys >= self.keys) & (queries >= 0)
        return x.masked_fill(too_far[:, None], -torch.inf)


def hide_channel(tokens: Sequence["TokenLabel"], channel: str, layer: Which = REQUIRED) -> HideKeys:
    """Hide every message on a channel from all tokens after the last one on it.

    Raises:
        LabError: no token is on it.
    """
    channels = [getattr(token, "channel", None) for token in tokens]
    keys = [position for position, each in enumerate(channels) if each and each == channel]
    if not keys:
        present = ", ".join(sorted({each for each in channels if each})) or "none"
        raise LabError(f"no token is on the channel {channel!r}; the channels here are {present}")
    return HideKeys(layer=layer, keys=keys, first_query=keys[-1] + 1)

"""Interventions on attention: heads, their sinks, and the keys that they can see."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from oss_lab.errors import LabError
from oss_lab.hooks.interventions.at import At
from oss_lab.hooks.interventions.base import Intervention, is_among
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
"""The logit of a removed sink, so low that its share rounds to 0. It is finite because a padding
token sees no key: with a sink of -inf, its softmax would return NaN."""


@dataclass(frozen=True, kw_only=True)
class AblateHead(Intervention):
    """Set a head's output (`attn.z`) to 0."""

    head: Which = field(default=REQUIRED, metadata=WHICH)
    WRITES: ClassVar[str] = "attn.z"

    def change(
        self, x: Float[Tensor, "row head seq head_dim"], at: At
    ) -> Float[Tensor, "row head seq head_dim"]:
        return x.masked_fill(_mask_head(x, self.head, self.select_tokens(at)), 0)


@dataclass(frozen=True, kw_only=True)
class ScaleHead(Intervention):
    """Multiply a head's output (`attn.z`)."""

    head: Which = field(default=REQUIRED, metadata=WHICH)
    by: float = field(default=REQUIRED, metadata=FINITE)
    WRITES: ClassVar[str] = "attn.z"

    def change(
        self, x: Float[Tensor, "row head seq head_dim"], at: At
    ) -> Float[Tensor, "row head seq head_dim"]:
        return torch.where(_mask_head(x, self.head, self.select_tokens(at)), x * self.by, x)


def _mask_head(
    x: Float[Tensor, "row head seq head_dim"], heads: Which, selected: Bool[Tensor, "row seq"]
) -> Bool[Tensor, "row head seq 1"]:
    chosen = is_among(heads, torch.arange(x.shape[1], device=x.device))
    return chosen[:, None, None] & selected[:, None, :, None]


@dataclass(frozen=True, kw_only=True)
class RemoveSink(Intervention):
    """Remove a head's sink, so all of its attention goes to tokens."""

    head: Which = field(default=REQUIRED, metadata=WHICH)
    WRITES: ClassVar[str] = "attn.sink"
    BY_POSITION: ClassVar[bool] = False

    def change(self, x: Float[Tensor, "*row head"], at: At) -> Float[Tensor, "*row head"]:
        return x.masked_fill(_mask_sink(x, self.head), REMOVED)


@dataclass(frozen=True, kw_only=True)
class SetSink(Intervention):
    """Set the logit of a head's sink; to=-inf removes the sink, like `RemoveSink`."""

    head: Which = field(default=REQUIRED, metadata=WHICH)
    to: float = field(default=REQUIRED, metadata=SINK)
    WRITES: ClassVar[str] = "attn.sink"
    BY_POSITION: ClassVar[bool] = False

    def change(self, x: Float[Tensor, "*row head"], at: At) -> Float[Tensor, "*row head"]:
        return x.masked_fill(_mask_sink(x, self.head), max(self.to, REMOVED))


@dataclass(frozen=True, kw_only=True)
class ShiftSink(Intervention):
    """Add to the logit of a head's sink.

    by=log(2) doubles the sink's weight relative to the tokens; by=-inf removes the sink.
    """

    head: Which = field(default=REQUIRED, metadata=WHICH)
    by: float = field(default=REQUIRED, metadata=SINK)
    WRITES: ClassVar[str] = "attn.sink"
    BY_POSITION: ClassVar[bool] = False

    def change(self, x: Float[Tensor, "*row head"], at: At) -> Float[Tensor, "*row head"]:
        return torch.where(_mask_sink(x, self.head), (x + self.by).clamp(min=REMOVED), x)


def _mask_sink(x: Float[Tensor, "*row head"], heads: Which) -> Bool[Tensor, "head"]:
    return is_among(heads, torch.arange(x.shape[-1], device=x.device))


@dataclass(frozen=True, kw_only=True)
class HideKeys(Intervention):
    """Hide the keys at these positions from tokens at `first_query` and later, in every head.

    `hide_channel` uses this to hide all messages on a channel from later tokens.
    """

    keys: Integers = field(default=REQUIRED, metadata=POSITIONS)
    first_query: int = field(default=REQUIRED, metadata=POSITION)
    WRITES: ClassVar[str] = "attn.scores"
    BY_POSITION: ClassVar[bool] = False

    def change(
        self, x: Float[Tensor, "row head seq key"], at: At
    ) -> Float[Tensor, "row head seq key"]:
        keys = is_among(cast("tuple[int, ...]", self.keys), at.key_positions(x.shape[-1]))
        queries = at.positions >= self.first_query
        return x.masked_fill((queries[:, :, None] & keys[:, None])[:, None], -torch.inf)


@dataclass(frozen=True, kw_only=True)
class NarrowWindow(Intervention):
    """Let each token see only its own key and the `keys` - 1 keys before it, in every head.

    With the size of the model's sliding window, this turns a full layer into a sliding one.
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
    """Hide all messages on a channel from every token after the channel's last token.

    Raises:
        LabError: no token is on this channel.
    """
    channels = [getattr(token, "channel", None) for token in tokens]
    keys = [position for position, each in enumerate(channels) if each and each == channel]
    if not keys:
        present = ", ".join(sorted({each for each in channels if each})) or "none"
        raise LabError(f"no token is on the channel {channel!r}; the channels here are {present}")
    return HideKeys(layer=layer, keys=keys, first_query=keys[-1] + 1)

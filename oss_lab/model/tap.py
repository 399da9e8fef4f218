"""Taps: the one visible line by which the forward shows, or lets change, what it computes.

`x = tap("attn.sink_mass", x)` hands a quantity out under its dotted name and takes back what the
forward goes on with; `oss_lab/hooks/points.py` lists the names. `taps(layer)` gives the tap of one
layer (None: outside all layers) and is called in every forward. With `untapped` the line is the
identity and logits are bit-identical to a forward without it.
"""

from collections.abc import Callable, Collection
from typing import Protocol

import torch
from torch import Tensor

Tap = Callable[[str, Tensor], Tensor]


class Taps(Protocol):
    """What looks into a forward, or changes it."""

    @property
    def points(self) -> Collection[str]:
        """The lines of the forward that it reads or writes; the rest it hands back untouched."""
        ...

    @property
    def writes(self) -> Collection[str]:
        """Those of them that it may hand back changed."""
        ...

    def __call__(self, layer: int | None) -> Tap: ...


def keep(name: str, x: Tensor) -> Tensor:
    """The tap that does nothing."""
    return x


class _Untapped:
    points: Collection[str] = ()
    writes: Collection[str] = ()

    def __call__(self, layer: int | None) -> Tap:
        return keep


untapped: Taps = _Untapped()
"""Record nothing, change nothing."""


class Recorder:
    """Keeps every tapped tensor whose name was asked for, as the forward has it; changes nothing.

    `recorder.seen[name, layer]` is the list of tensors in call order, one per forward; `layer` is
    None for quantities outside the layers (`embed`, `out.norm`, `out.logits`).
    """

    writes: Collection[str] = ()

    def __init__(self, points: Collection[str]) -> None:
        self.points = frozenset(points)
        self.seen: dict[tuple[str, int | None], list[Tensor]] = {}

    def __call__(self, layer: int | None) -> Tap:
        def record(name: str, x: Tensor) -> Tensor:
            if name in self.points:
                self.seen.setdefault((name, layer), []).append(x.detach().clone())
            return x

        return record

    def stacked(self, name: str) -> Tensor:
        """The last forward's first batch row: [layer, ...], or [...] outside the layers."""
        layers = [values[-1] for (seen, _), values in self.seen.items() if seen == name]
        rows = [value[0] if name != "attn.sink" else value for value in layers]
        outside = (name, None) in self.seen
        return rows[0] if outside else torch.stack(rows)

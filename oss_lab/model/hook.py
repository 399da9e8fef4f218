"""Hooks: the one visible line by which the forward shows, or lets change, what it computes.

`x = hook("attn.sink_mass", x)` passes a value to the caller's function under its dotted name and
continues with what the function returns; `oss_lab/hooks/points.py` lists the names. With `no_hooks`
the line is the identity, and logits are bit-identical to a forward without it.
"""

from collections.abc import Callable, Collection

import torch
from torch import Tensor

Hooks = Callable[[str, int | None, Tensor], Tensor]
"""(point, layer, x) -> what the forward continues with; layer is None outside the layers."""

LayerHook = Callable[[str, Tensor], Tensor]
"""The same for one layer: (point, x) -> x."""


def no_hooks(point: str, layer: int | None, x: Tensor) -> Tensor:
    """Show nothing, change nothing."""
    return x


def in_layer(hooks: Hooks, layer: int | None) -> LayerHook:
    """The hook of one layer, or of what is outside the layers (None)."""
    return keep if hooks is no_hooks else lambda point, x: hooks(point, layer, x)


def keep(point: str, x: Tensor) -> Tensor:
    """The hook of a layer that changes nothing."""
    return x


class Recorder:
    """Hooks that keep every value at these points, as the forward has it; they change nothing.

    `recorder.seen[point, layer]` is the list of tensors in call order, one per forward; `layer` is
    None outside the layers (`embed`, `out.norm`, `out.logits`).
    """

    def __init__(self, points: Collection[str]) -> None:
        self.points = frozenset(points)
        self.seen: dict[tuple[str, int | None], list[Tensor]] = {}

    def __call__(self, point: str, layer: int | None, x: Tensor) -> Tensor:
        if point in self.points:
            self.seen.setdefault((point, layer), []).append(x.detach().clone())
        return x

    def stacked(self, point: str) -> Tensor:
        """The last forward's first batch row: [layer ...], or [...] outside the layers."""
        rows = [values[-1][0] for (seen, _), values in self.seen.items() if seen == point]
        return rows[0] if (point, None) in self.seen else torch.stack(rows)

"""Find the first layer, point and token at which two labs part."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from oss_lab.course.instruments.example import LENGTHS, example_ids, take_prefix
from oss_lab.hooks.points import POINTS
from oss_lab.hooks.selection import name_tensor
from oss_lab.lab.prompts import Prompt
from oss_lab.lab.workbench import Lab
from oss_lab.record.diff import absolute_difference
from oss_lab.record.token_labels import token_text

TOLERANCE = 1e-4
"""Relative difference above which two values differ; in float32, rounding stays below it."""


@dataclass(frozen=True, repr=False)
class Difference:
    """The first place where two labs differ in a forward pass; `point` is None if they do not.

    Attributes:
        position: the first token with a difference; None if the values have no token axis.
        token: its text.
        size: the largest difference at this point, relative to the root mean square of its values.
    """

    length: int
    point: str | None = None
    layer: int | None = None
    position: int | None = None
    token: str | None = None
    size: float = 0.0

    def __repr__(self) -> str:
        if self.point is None:
            return f"no difference in a text of {self.length} tokens"
        layer = "" if self.layer is None else f"layer {self.layer}, "
        where = "" if self.position is None else f" at token {self.position} ({self.token!r})"
        size = f"relative size {self.size:.2g}"
        size = size if math.isfinite(self.size) else "infinite in one of the labs only"
        return f"first difference: {layer}{self.point}{where}, {size}"


def first_difference(
    lab: Lab,
    other: Lab,
    length: int = LENGTHS[-1],
    of: Prompt | None = None,
    tolerance: float = TOLERANCE,
) -> Difference:
    """Find the first layer, point and token at which two labs compute different values.

    Layers are compared in order, and in each layer the points in the order of the computation.
    Arguments as in `compare_logits`.
    """
    ids = take_prefix(example_ids(lab) if of is None else lab.tokens_of(of), length)
    points = [name for name, point in POINTS.items() if not point.sources]
    a, b = lab.trace(ids, points), other.trace(ids, points)
    for name, layer in list_places(points, lab.config.num_hidden_layers):
        apart = relative_difference(
            name, *(each.tensors[name_tensor(name, layer)] for each in (a, b))
        )
        if not (apart > tolerance).any():
            continue
        size = float(apart.max())
        if "seq" not in POINTS[name].axes:
            return Difference(length, name, layer, size=size)
        position = int((apart > tolerance).flatten(1).any(1).nonzero()[0])
        token = token_text(lab.tokenizer, ids[position])
        return Difference(length, name, layer, position, token, size)
    return Difference(length)


def list_places(points: Sequence[str], layers: int) -> list[tuple[str, int | None]]:
    """Each point with its layer, in the order of the computation."""
    inside = [name for name in points if POINTS[name].is_per_layer]
    first, last = points.index(inside[0]), points.index(inside[-1])
    return [
        *((name, None) for name in points[:first]),
        *((name, layer) for layer in range(layers) for name in inside),
        *((name, None) for name in points[last + 1 :]),
    ]


def relative_difference(name: str, x: Tensor, y: Tensor) -> Tensor:
    """The differences of a point's values, relative to their root mean square.

    Expert ids are compared as sets, because two almost equal experts may swap slots.
    """
    if POINTS[name].kind == "expert":
        return absolute_difference(x.sort().values, y.sort().values)
    apart, numbers = absolute_difference(x, y), x.double()[x.isfinite()]
    apart = torch.where(x.isfinite() == y.isfinite(), apart, math.inf)
    return apart / (numbers.square().mean().sqrt().clamp(min=1e-30))

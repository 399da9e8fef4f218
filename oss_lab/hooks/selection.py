"""What to record: which points, layers, heads and positions, as plain data."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import index
from typing import Any, SupportsIndex

import numpy as np
import torch

from oss_lab.config import ModelConfig
from oss_lab.errors import LabError, check_index
from oss_lab.hooks.points import Point, check_points

Integers = Iterable[Any] | SupportsIndex
"""One integer or several: a list, a range, a NumPy array, a tensor."""


def to_integers(what: str, given: Integers | None) -> tuple[int, ...] | None:
    """Convert one integer or several to a tuple; None stays None.

    >>> to_integers("layers", range(2)), to_integers("layers", 3)
    ((0, 1), (3,))

    Raises:
        LabError: a value is not an integer.
    """
    if given is None:
        return None
    plain: Any = given
    if hasattr(plain, "__array__"):  # from torch, NumPy or xarray
        plain = plain.tolist() if hasattr(plain, "tolist") else np.asarray(plain).tolist()
    several = [plain] if is_integer(plain) else plain
    if isinstance(several, str) or not isinstance(several, Iterable):
        raise LabError(f"{what}: expected integers, got {given!r}")
    found = list(several)
    for each in found:
        if not is_integer(each):
            raise LabError(f"{what}: expected integers, got {each!r}")
    return tuple(index(each) for each in found)


def is_integer(value: object) -> bool:
    """Whether it is one integer, from any library; booleans do not count."""
    if isinstance(value, bool) or getattr(value, "ndim", 0):
        return False
    if getattr(value, "dtype", None) == torch.bool:
        return False
    try:
        index(value)  # pyright: ignore[reportArgumentType]
    except TypeError:
        return False
    return True


def to_names(what: str, given: Iterable[str]) -> tuple[str, ...]:
    """Convert a list of names to a tuple.

    Raises:
        LabError: `given` is one string, or contains something other than strings.
    """
    if isinstance(given, str):
        raise LabError(f"{what}: expected a list of names, got the string {given!r}")
    if not isinstance(given, Iterable):
        raise LabError(f"{what}: expected a list of names, got {given!r}")
    names = tuple(given)
    if wrong := [name for name in names if not isinstance(name, str)]:
        raise LabError(f"{what}: expected names, got {wrong[0]!r}")
    return names


def drop_duplicates(values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    """Drop duplicates, keeping the first of each; None stays None."""
    return None if values is None else tuple(dict.fromkeys(values))


def first_unordered(positions: Sequence[int]) -> int | None:
    """The first position that is not larger than the previous one, or None."""
    return next((b for a, b in pairwise(positions) if b <= a), None)


@dataclass(frozen=True)
class Selection:
    """What to record; None means all layers, heads or positions."""

    points: tuple[str, ...]
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    positions: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls,
        points: Sequence[str],
        layers: Integers | None = None,
        heads: Integers | None = None,
        positions: Integers | None = None,
    ) -> "Selection":
        """Create a selection; duplicate points, layers and heads are dropped.

        Raises:
            LabError: the points are not names, or the other values are not integers.
        """
        names = drop_duplicates(to_names("points", points))
        each = (
            drop_duplicates(to_integers("layers", layers)),
            drop_duplicates(to_integers("heads", heads)),
        )
        return cls(names or (), *each, to_integers("positions", positions))

    def check(self, config: ModelConfig, seq: int | None = None) -> None:
        """Raise LabError if this model, or a sequence of `seq` tokens, lacks something selected."""
        if not self.points:
            raise LabError("points is empty; name at least one")
        check_points(self.points)
        for what, chosen, count in (
            ("layer", self.layers, config.num_hidden_layers),
            ("head", self.heads, config.num_attention_heads),
            ("position", self.positions, seq),
        ):
            if chosen is None or count is None:
                continue
            if not chosen:
                raise LabError(f"{what}s is empty; leave it out to select all")
            for n in chosen:
                check_index(what, n, count)
        if (position := first_unordered(self.positions or ())) is not None:
            raise LabError(
                f"positions must increase without repeats; {position} is not larger than the one"
                " before it"
            )

    def layers_of(self, point: Point, config: ModelConfig) -> list[int | None]:
        """The layers to record of a point; [None] if it is outside the layers."""
        if not point.is_per_layer:
            return [None]
        return list(range(config.num_hidden_layers) if self.layers is None else self.layers)

    def heads_of(self, point: Point, config: ModelConfig) -> list[int] | None:
        """The heads to record of a point; for key-value heads, those that the chosen heads use."""
        if self.heads is None:
            return None
        if "kv_head" in point.axes:
            group = config.num_attention_heads // config.num_key_value_heads
            return sorted({head // group for head in self.heads})
        return list(self.heads) if "head" in point.axes else None


def name_tensor(name: str, layer: int | None) -> str:
    """Name of a tensor in files and messages: `moe.expert_ids/3`, `out.logits`."""
    return name if layer is None else f"{name}/{layer}"

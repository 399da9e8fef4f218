"""What the fields of an intervention accept, and how they are stored.

A field is declared with a kind: `head: Which = field(default=REQUIRED, metadata=WHICH)`. The base
class reads every field through its kind, and refuses what is missing or has the wrong type.
"""

import operator
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex

import numpy as np
import torch
from torch import Tensor

from oss_lab.errors import LabError
from oss_lab.hooks.points import POINTS, check_points

Integers = SupportsIndex | Iterable[SupportsIndex]
Which = Integers | Literal["all"]
"""An integer, several, or all; stored as a sorted tuple without duplicates, or "all"."""

REQUIRED: Any = object()
"""Marks a field that must be given; a missing one raises LabError instead of TypeError."""

NOUNS = {name: f"a {name}" for name in ("layer", "head", "slot", "point", "vector")}
NOUNS |= {"expert": "an expert"}


@dataclass(frozen=True)
class Kind:
    """What a field holds: in words, and as a conversion that raises for anything else."""

    what: str
    convert: Callable[[Any], Any]

    def read(self, owner: str, name: str, value: Any) -> Any:
        """The value to store, or LabError if it is missing or not of this kind."""
        if value is REQUIRED:
            raise LabError(f"{owner} needs {NOUNS.get(name, name)}: {self.what}")
        try:
            return self.convert(value)
        except LabError as error:
            raise LabError(f"{owner}: {error}") from None
        except (TypeError, ValueError, OverflowError, RuntimeError):
            raise LabError(f"{owner}: {name} must be {self.what}, got {_describe(value)}") from None


def writable(point: str) -> None:
    """Raise LabError for a point that cannot be written."""
    check_points([point])
    if reason := POINTS[point].fixed:
        raise LabError(f"{point} cannot be written: {reason}")


def _describe(value: Any) -> str:
    """A value in a few words: arrays by type and shape, the rest as Python shows it."""
    if shape := getattr(value, "shape", ()):
        kind = type(value).__name__
        return f"{kind} of {str(value.dtype).removeprefix('torch.')} {list(shape)}"
    return " ".join(reprlib.repr(value).split())


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


def _need(is_met: bool) -> None:
    if not is_met:
        raise ValueError


def _integer(value: Any, least: int | None = None) -> int:
    _need(not _is_bool(value) and getattr(value, "ndim", 0) == 0)
    number = operator.index(value)
    _need((least is None or number >= least) and abs(number) < 2**63)
    return number


def _integers(value: Any, least: int | None = None) -> tuple[int, ...]:
    """In the order given, duplicates kept."""
    _need(not isinstance(value, str | bytes))
    if isinstance(value, np.ndarray | Tensor):
        value = value.tolist()
    several = value if isinstance(value, Iterable) else [value]
    found = tuple(_integer(each, least) for each in several)
    _need(len(found) > 0)
    return found


def _sorted_integers(value: Any, least: int | None = None) -> tuple[int, ...]:
    return tuple(sorted(set(_integers(value, least))))


def _which(value: Any) -> tuple[int, ...] | Literal["all"]:
    return "all" if isinstance(value, str) and value == "all" else _sorted_integers(value)


def _number(value: Any) -> float:
    """A float that is not NaN and below infinity."""
    _need(not _is_bool(value) and not isinstance(value, str | bytes))
    _need(getattr(value, "ndim", 0) == 0)
    number = float(value)
    _need(number < np.inf)
    return number


def _finite(value: Any) -> float:
    number = _number(value)
    _need(number > -np.inf)
    return number


def _tensor(value: Any) -> Tensor:
    """A copy of an array, a list or a tensor; a tensor keeps its graph."""
    # np.array copies, so read-only and strided arrays are fine.
    copy = value.clone() if isinstance(value, Tensor) else torch.as_tensor(np.array(value))
    _need(copy.ndim > 0 and copy.layout == torch.strided)
    _need(copy.dtype != torch.bool and not copy.is_complex())
    return copy


def _vector(value: Any) -> Tensor:
    vector = _tensor(value)
    _need(vector.ndim == 1 and bool(vector.isfinite().all()))
    return vector


def _values(value: Any) -> Tensor:
    values = _tensor(value).detach()
    _need(len(values) > 0 and not values.isnan().any())
    return values


def _point(value: Any) -> str:
    _need(isinstance(value, str))
    writable(value)
    return value


def _function(value: Any) -> Any:
    _need(callable(value))
    return value


def _channels(value: Any) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value)
    _need(len(names) > 0 and all(isinstance(name, str) for name in names))
    return tuple(sorted(set(names)))


def _one(value: Any) -> tuple[int]:
    """A single integer, stored as a tuple like several."""
    (number,) = _integers(value)
    return (number,)


def _kind(what: str, convert: Callable[[Any], Any]) -> Mapping[str, Kind]:
    return {"kind": Kind(what, convert)}


WHICH = _kind("an integer, a list or range, or 'all'", _which)
INTEGER = _kind("an integer", _integer)
ONE = _kind("an integer", _one)
POSITION = _kind("an integer of 0 or more", lambda value: _integer(value, 0))
POSITIONS = _kind("integers of 0 or more", lambda value: _sorted_integers(value, 0))
POSITIONS_IN_ORDER = _kind("integers of 0 or more", lambda value: _integers(value, 0))
WIDTH = _kind(
    "an integer of 1 or more (a token always sees its own key)",
    lambda value: _integer(value, 1),
)
FINITE = _kind("a finite number", _finite)
BIAS = _kind("a finite number (to ban an expert, use BanExpert)", _finite)
SINK = _kind("a number, or -inf to remove the sink", _number)
VECTOR = _kind("finite numbers [hidden], as a tensor or an array", _vector)
VALUES = _kind("numbers other than NaN, [position ...], as a tensor or an array", _values)
POINT = _kind("the name of a hook point", _point)
FUNCTION = _kind("a function fn(x, here)", _function)
CHANNELS = _kind("the name of a channel, or a list of names", _channels)

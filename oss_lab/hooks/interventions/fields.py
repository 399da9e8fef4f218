"""What the fields of an intervention accept, and how they are stored.

A field is declared with a kind: `head: Which = field(default=REQUIRED, metadata=WHICH)`. The base
class converts every field with its kind, and raises LabError if it is missing or of a wrong type.
"""

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex

import numpy as np
import torch
from torch import Tensor

from oss_lab.errors import LabError
from oss_lab.hooks.arguments import describe
from oss_lab.hooks.points import POINTS, check_points
from oss_lab.model.hook import check_parameters

Integers = SupportsIndex | Iterable[SupportsIndex]
Which = Integers | Literal["all"]
"""An integer, several, or all; stored as a sorted tuple without duplicates, or "all"."""

REQUIRED: Any = object()
"""Marks a field that must be given; a missing one raises LabError instead of TypeError."""

NOUNS = {name: f"a {name}" for name in ("layer", "head", "slot", "point", "vector")}
NOUNS |= {"expert": "an expert"}

EXAMPLES = {
    "layer": "0",
    "head": "3",
    "expert": "7",
    "slot": "0",
    "by": "0.5",
    "to": "0.0",
    "keys": "5",
    "first_query": "8",
    "positions": "[2]",
    "point": "'resid.post'",
    "vector": "vector",
    "values": "values",
    "fn": "fn",
}
"""For each required field, how the example in a message writes it."""


@dataclass(frozen=True)
class Kind:
    """What a field accepts: in words, and as a conversion that raises for anything else."""

    what: str
    convert: Callable[[Any], Any]

    def read(self, owner: str, name: str, value: Any) -> Any:
        """Return the value to store; raise LabError if it is missing or not of this kind."""
        if value is REQUIRED:
            raise LabError(self.explain_missing(owner, name))
        try:
            return self.convert(value)
        except LabError as error:
            raise LabError(f"{owner}: {error}") from None
        except (TypeError, ValueError, OverflowError, RuntimeError):
            raise LabError(f"{owner}: {name} must be {self.what}, got {describe(value)}") from None

    def explain_missing(self, owner: str, name: str) -> str:
        """The sentence about a missing argument."""
        return f"{owner} needs {NOUNS.get(name, name)}: {self.what}"


def check_writable(point: str) -> None:
    """Raise LabError for a point that cannot be modified."""
    check_points([point])
    if reason := POINTS[point].read_only_reason:
        raise LabError(f"{point} cannot be modified: {reason}")


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or str(getattr(value, "dtype", "")) in ("bool", "torch.bool")


def _require(is_met: bool) -> None:
    if not is_met:
        raise ValueError


def _to_integer(value: Any, least: int | None = None) -> int:
    _require(not _is_bool(value) and getattr(value, "ndim", 0) == 0)
    number = operator.index(value)
    _require((least is None or number >= least) and abs(number) < 2**63)
    return number


def _to_integers(value: Any, least: int | None = None) -> tuple[int, ...]:
    """In the order given, duplicates kept."""
    _require(not isinstance(value, str | bytes))
    if isinstance(value, np.ndarray | Tensor):
        value = value.tolist()
    several = value if isinstance(value, Iterable) else [value]
    found = tuple(_to_integer(each, least) for each in several)
    _require(len(found) > 0)
    return found


def _to_sorted_integers(value: Any, least: int | None = None) -> tuple[int, ...]:
    return tuple(sorted(set(_to_integers(value, least))))


def _to_which(value: Any) -> tuple[int, ...] | Literal["all"]:
    return "all" if isinstance(value, str) and value == "all" else _to_sorted_integers(value)


def _to_number(value: Any) -> float:
    """A float other than NaN and infinity; -inf is allowed."""
    _require(not _is_bool(value) and not isinstance(value, str | bytes))
    _require(getattr(value, "ndim", 0) == 0)
    number = float(value)
    _require(number < np.inf)
    return number


def _to_finite(value: Any) -> float:
    number = _to_number(value)
    _require(number > -np.inf)
    return number


def _to_tensor(value: Any) -> Tensor:
    """Copy an array, a list or a tensor; a tensor keeps its autograd graph."""
    # np.array copies, so read-only and strided arrays work too.
    copy = value.clone() if isinstance(value, Tensor) else torch.as_tensor(np.array(value))
    _require(copy.ndim > 0 and copy.layout == torch.strided)
    _require(copy.dtype != torch.bool and not copy.is_complex())
    return copy


def _to_vector(value: Any) -> Tensor:
    vector = _to_tensor(value)
    _require(vector.ndim == 1 and bool(vector.isfinite().all()))
    return vector


def _to_values(value: Any) -> Tensor:
    values = _to_tensor(value).detach()
    _require(len(values) > 0 and not values.isnan().any())
    return values


def _to_point(value: Any) -> str:
    _require(isinstance(value, str))
    check_writable(value)
    return value


def _to_function(value: Any) -> Any:
    _require(callable(value))
    check_parameters("fn", value, "x", "here")
    return value


def _to_channels(value: Any) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value)
    _require(len(names) > 0 and all(isinstance(name, str) for name in names))
    return tuple(sorted(set(names)))


def _to_single(value: Any) -> tuple[int]:
    """A single integer, stored as a tuple of one."""
    (number,) = _to_integers(value)
    return (number,)


def _make_kind(what: str, convert: Callable[[Any], Any]) -> Mapping[str, Kind]:
    return {"kind": Kind(what, convert)}


WHICH = _make_kind("an integer, a list or range, or 'all'", _to_which)
INTEGER = _make_kind("an integer", _to_integer)
ONE = _make_kind("an integer", _to_single)
POSITION = _make_kind("an integer of 0 or more", lambda value: _to_integer(value, 0))
POSITIONS = _make_kind("integers of 0 or more", lambda value: _to_sorted_integers(value, 0))
POSITIONS_IN_ORDER = _make_kind("integers of 0 or more", lambda value: _to_integers(value, 0))
WIDTH = _make_kind(
    "an integer of 1 or more (a token always sees its own key)",
    lambda value: _to_integer(value, 1),
)
FINITE = _make_kind("a finite number", _to_finite)
BIAS = _make_kind("a finite number (to ban an expert, use BanExpert)", _to_finite)
SINK = _make_kind("a number, or -inf to remove the sink", _to_number)
VECTOR = _make_kind("finite numbers [hidden], as a tensor or an array", _to_vector)
VALUES = _make_kind("numbers other than NaN, [position ...], as a tensor or an array", _to_values)
POINT = _make_kind("the name of a hook point", _to_point)
FUNCTION = _make_kind("a function fn(x, here)", _to_function)
CHANNELS = _make_kind("the name of a channel, or a list of names", _to_channels)

"""The base class of interventions: where one applies, what it changes, and how it is printed."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from itertools import groupby
from typing import Any, ClassVar, Self, cast

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.errors import LabError, explain_range, explain_unknown
from oss_lab.hooks.interventions.at import At
from oss_lab.hooks.interventions.fields import (
    EXAMPLES,
    POSITIONS,
    REQUIRED,
    WHICH,
    Integers,
    Kind,
    Which,
    check_writable,
)
from oss_lab.hooks.points import POINTS

__all__ = [
    "Intervention",
    "check_writable",
    "format_runs",
    "format_value",
    "hash_values",
    "is_among",
]


@dataclass(frozen=True, kw_only=True)
class Intervention(ABC):
    """A change inside the forward pass. Subclasses define the point and the change.

    Attributes:
        layer: an integer, a list or range, or "all"; stored as a sorted tuple or "all". None only
            for a point outside the layers.
        positions: positions from the start of the sequence; None for every token.
    """

    layer: Which | None = field(default=None, metadata=WHICH)
    positions: Integers | None = field(default=None, metadata=POSITIONS)

    WRITES: ClassVar[str]
    READS: ClassVar[tuple[str, ...]] = ()  # other points whose values it needs
    BY_POSITION: ClassVar[bool] = True  # whether `positions` can limit it
    MAY_ONLY_OBSERVE: ClassVar[bool] = False  # whether changing nothing is normal
    NEEDS_CHANNELS: ClassVar[bool] = False  # whether it needs the channel of every token

    def __new__(cls, *values: Any, **given: Any) -> Self:
        """Raise LabError for a value without its name, or for an unknown name."""
        known = [each.name for each in fields(cls)]
        positional = [each.name for each in fields(cls) if not each.kw_only]
        if len(values) > len(positional):
            raise LabError(
                f"{cls.__name__} takes {', '.join(known)} by name, such as {build_example(cls)}"
            )
        if unknown := [name for name in given if name not in known]:
            problem = explain_unknown("argument", unknown[0], known)
            raise LabError(f"{cls.__name__}: {problem}; write {build_example(cls)}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        """Convert every field according to its kind, or raise LabError."""
        owner = type(self).__name__
        kinds: dict[str, Kind] = {
            each.name: each.metadata["kind"] for each in fields(self) if "kind" in each.metadata
        }
        optional = {each.name for each in fields(self) if each.default is None}
        for name, kind in kinds.items():
            value = getattr(self, name)
            if value is REQUIRED:
                raise LabError(self._explain_missing(name))
            if value is not None or name not in optional:
                object.__setattr__(self, name, kind.read(owner, name, value))
        if POINTS[self.writes].is_per_layer and self.layer is None:
            raise LabError(self._explain_missing("layer"))
        if not POINTS[self.writes].is_per_layer and self.layer is not None:
            raise LabError(f"{owner}: {self.writes} is outside the layers; leave layer out")
        if self.positions is not None and not self.BY_POSITION:
            raise LabError(f"{owner} applies to every token; leave positions out")

    def _explain_missing(self, name: str) -> str:
        """The sentence about a missing argument, with a call that works."""
        kinds = {each.name: each.metadata["kind"] for each in fields(self)}
        missing = kinds[name].explain_missing(type(self).__name__, name)
        return f"{missing}, such as {build_example(type(self))}"

    @property
    def writes(self) -> str:
        """The point that it changes."""
        return self.WRITES

    @property
    def needs_channels(self) -> bool:
        """Whether it needs the channel of every token."""
        return self.NEEDS_CHANNELS

    def applies_in(self, layer: int | None) -> bool:
        """Whether it applies in this layer; None means outside the layers."""
        if self.layer is None or layer is None:
            return self.layer is layer
        return self.layer == "all" or layer in cast("tuple[int, ...]", self.layer)

    def check(self, config: ModelConfig) -> None:
        """Raise LabError for a layer, head, expert or slot that this model does not have."""
        counts = {
            "layer": config.num_hidden_layers,
            "head": config.num_attention_heads,
            "expert": config.num_experts,
            "slot": config.experts_per_token,
        }
        for name, count in counts.items():
            chosen = getattr(self, name, None)
            numbers = (chosen,) if isinstance(chosen, int) else chosen or ()
            for number in () if numbers == "all" else numbers:
                if not 0 <= number < count:
                    raise LabError(f"{self}: {explain_range(name, number, count)}")

    @abstractmethod
    def change(self, x: Tensor, at: At) -> Tensor:
        """Return the changed x [row ...], in the model's layout.

        Never changes x in place. Padding tokens keep their values.
        """

    def select_tokens(self, at: At) -> Bool[Tensor, "row seq"]:
        """True for the tokens that it applies to."""
        return at.select_tokens(cast("tuple[int, ...] | None", self.positions))

    def __str__(self) -> str:
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        parts = [
            f"{name}={format_value(value)}" for name, value in values.items() if value is not None
        ]
        return f"{type(self).__name__}({', '.join(parts)})"


def build_example(owner: type[Intervention]) -> str:
    """A call that works, with every required argument."""
    needed = [each.name for each in fields(owner) if each.default is REQUIRED]
    shown = ["layer", *(name for name in needed if name != "layer")]
    return f"`{owner.__name__}({', '.join(f'{name}={EXAMPLES[name]}' for name in shown)})`"


def is_among(which: Which | None, numbers: Int[Tensor, "*axes"]) -> Bool[Tensor, "*axes"]:
    """True for the numbers in `which`, a stored field: a tuple or "all"."""
    if which == "all":
        return torch.ones_like(numbers, dtype=torch.bool)
    return torch.isin(numbers, torch.tensor(which, dtype=numbers.dtype, device=numbers.device))


def hash_values(values: Tensor) -> str:
    """A short hash that identifies a tensor's values."""
    wide = values.detach().cpu().double().contiguous().numpy()
    return "#" + hashlib.sha256(wide.tobytes()).hexdigest()[:8]


def format_runs(numbers: tuple[int, ...]) -> str:
    """Integers in short form.

    >>> format_runs((0, 1, 2, 5, 7, 8))
    '0-2,5,7-8'
    """
    parts = []
    for _, group in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        parts.append(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}")
    return ",".join(parts)


def format_value(value: Any) -> str:
    """The value of a field in short form."""
    if isinstance(value, Tensor):
        return hash_values(value)
    if isinstance(value, tuple):
        is_numbers = all(isinstance(each, int) for each in value)
        return format_runs(value) if is_numbers else ",".join(value)
    return str(value)

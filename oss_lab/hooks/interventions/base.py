"""What every intervention has: where it holds, what it writes, and the place that it is handed."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar, Protocol

from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.errors import LabError
from oss_lab.hooks.points import POINTS, check_points


class Place(Protocol):
    """Where a forward is when it asks for a change."""

    layer: int | None
    handed: dict[str, Tensor]
    """What the layer handed out so far, by point, as it goes on."""

    positions: Tensor
    """Of the tokens that go through [seq]."""

    def rows(self, positions: tuple[int, ...] | None) -> Tensor:
        """Which of the current tokens these positions are: a mask [seq]."""
        ...

    def first_key(self, keys: int) -> int:
        """The position of the first of the last `keys` keys."""
        ...


@dataclass(frozen=True, kw_only=True)
class Intervention(ABC):
    """What every one has; where it writes, and what, is its own.

    Attributes:
        layer: None for every layer.
        positions: None for every token; counted from the sequence's beginning.
    """

    layer: int | None = None
    positions: tuple[int, ...] | None = None

    WRITES: ClassVar[str]
    READS: ClassVar[tuple[str, ...]] = ()  # points whose value it needs besides
    BY_POSITION: ClassVar[bool] = True  # whether `positions` means something to it

    @property
    def writes(self) -> str:
        """The point that it writes."""
        return self.WRITES

    @property
    def counts(self) -> bool:
        """Whether it depends on where in the sequence a token stands."""
        return self.positions is not None

    def check(self, config: ModelConfig) -> None:
        """Raise LabError for what this model does not have, or what says nothing here."""
        if self.positions is not None and not self.BY_POSITION:
            raise LabError(f"{self}: it holds for every token; leave positions out")
        places = self.positions or ()
        if any(position < 0 for position in places) or len(set(places)) < len(places):
            raise LabError(f"{self}: positions are 0 or more, each given once")
        counts = {
            "layer": config.num_hidden_layers,
            "head": config.num_attention_heads,
            "expert": config.num_experts,
            "slot": config.experts_per_token,
        }
        for name, count in counts.items():
            chosen = getattr(self, name, None)
            if chosen is not None and not 0 <= chosen < count:
                raise LabError(f"{self}: there is no {name} {chosen}; they are 0 to {count - 1}")

    @abstractmethod
    def change(self, x: Tensor, at: Place) -> Tensor:
        """What the forward goes on with instead of x, [batch ...] as the forward has it."""

    def __str__(self) -> str:
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        told = ", ".join(
            f"{name}={fingerprint(value) if isinstance(value, Tensor) else value}"
            for name, value in given.items()
            if value is not None
        )
        return f"{type(self).__name__}({told})"


def fingerprint(values: Tensor) -> str:
    """What tells one tensor from another in a few characters."""
    wide = values.detach().cpu().double().contiguous().numpy()
    return "#" + hashlib.sha256(wide.tobytes()).hexdigest()[:8]


def writable(point: str) -> None:
    """Raise LabError for a point that cannot be written."""
    check_points([point])
    if reason := POINTS[point].fixed:
        raise LabError(f"{point} cannot be written: {reason}")

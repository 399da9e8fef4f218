"""Values put in: a vector added, or what another run computed."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.errors import LabError
from oss_lab.hooks.interventions.base import Intervention, Place, writable
from oss_lab.hooks.points import POINTS
from oss_lab.record.trace import Trace


@dataclass(frozen=True, kw_only=True)
class AddVector(Intervention):
    """Add a vector [hidden] to a residual stream or another point of that shape: steering."""

    point: str
    vector: Tensor = field(repr=False, compare=False)
    by: float = 1.0

    def __post_init__(self) -> None:
        writable(self.point)

    @property
    def writes(self) -> str:
        return self.point

    def check(self, config: ModelConfig) -> None:
        super().check(config)
        in_layers(self, self.point)
        if POINTS[self.point].axes != ("seq", "hidden"):
            raise LabError(f"{self}: a vector is added to points [seq hidden] only")
        if self.vector.shape != (config.hidden_size,):
            raise LabError(
                f"{self}: the vector is {list(self.vector.shape)} and must be"
                f" [{config.hidden_size}], the model's hidden size"
            )

    def change(self, x: Tensor, at: Place) -> Tensor:
        added = torch.zeros_like(x)
        added[:, at.rows(self.positions)] = self.by * self.vector.to(x)
        return x + added


@dataclass(frozen=True, kw_only=True)
class Patch(Intervention):
    """Put what another run computed in the place of what this one does.

    Attributes:
        positions: of this sequence, one for each row of `values`.
        values: [position ...] as a trace keeps the point; None of its axes may be `key`.
    """

    point: str
    values: Tensor = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        writable(self.point)
        if self.positions is None or len(self.positions) != len(self.values):
            raise LabError(f"{self}: give a position for each of the {len(self.values)} values")
        if "key" in POINTS[self.point].axes or "seq" not in POINTS[self.point].axes:
            raise LabError(f"{self}: only points with a value a token can be patched")

    @classmethod
    def from_trace(
        cls, trace: Trace, point: str, layer: int | None, onto: dict[int, int]
    ) -> "Patch":
        """Rows of a trace; `onto` says which of its positions goes to which of this sequence."""
        kept = {position: row for row, position in enumerate(trace.positions)}
        if missing := [position for position in onto if position not in kept]:
            raise LabError(f"the trace holds no position {missing[0]}")
        rows = [kept[position] for position in onto]
        values = trace.tensor(point, layer)[rows]
        return cls(point=point, layer=layer, positions=tuple(onto.values()), values=values)

    @property
    def writes(self) -> str:
        return self.point

    def check(self, config: ModelConfig) -> None:
        super().check(config)
        in_layers(self, self.point)
        shape = [POINTS[self.point].size(axis, config, 1) for axis in POINTS[self.point].axes[1:]]
        if list(self.values.shape[1:]) != shape:
            raise LabError(
                f"{self}: a position's value is {list(self.values.shape[1:])} and must be {shape}"
            )

    def change(self, x: Tensor, at: Place) -> Tensor:
        assert self.positions is not None
        patched = x.clone()
        rows = patched.transpose(1, 2) if POINTS[self.point].by_head else patched
        places = {int(position): row for row, position in enumerate(at.positions.tolist())}
        for value, position in zip(self.values, self.positions, strict=True):
            if position in places:
                rows[:, places[position]] = value.to(x)
        return patched


def in_layers(intervention: Intervention, point: str) -> None:
    """Raise LabError where a layer is named for a point outside them."""
    if intervention.layer is not None and not POINTS[point].layered:
        raise LabError(f"{intervention}: {point} is in no layer; leave the layer out")

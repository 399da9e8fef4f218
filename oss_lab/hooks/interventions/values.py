"""Interventions that insert values: add a vector, or patch in activations of another run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, SupportsIndex, cast

import torch
from jaxtyping import Float, Int, Shaped
from numpy.typing import ArrayLike
from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments
from oss_lab.hooks.interventions.at import At
from oss_lab.hooks.interventions.base import Intervention
from oss_lab.hooks.interventions.fields import (
    FINITE,
    ONE,
    POINT,
    POSITIONS_IN_ORDER,
    REQUIRED,
    VALUES,
    VECTOR,
    Integers,
)
from oss_lab.hooks.points import POINTS

if TYPE_CHECKING:
    from oss_lab.record.trace import Trace


@dataclass(frozen=True, kw_only=True)
class AddVector(Intervention):
    """Add a vector to the residual stream, or to another point [seq hidden] (steering).

    Attributes:
        vector: [hidden], a tensor or an array; copied.
        by: factor by which the vector is multiplied.
    """

    point: str = field(default=REQUIRED, metadata=POINT)
    vector: Float[Tensor, "hidden"] | ArrayLike = field(
        default=REQUIRED, metadata=VECTOR, repr=False, compare=False
    )
    by: float = field(default=1.0, metadata=FINITE)

    def __post_init__(self) -> None:
        super().__post_init__()
        if POINTS[self.point].axes != ("seq", "hidden"):
            axes = " ".join(POINTS[self.point].axes)
            raise LabError(
                f"AddVector needs a point with axes [seq hidden], but {self.point} has [{axes}];"
                " use Hook there"
            )

    @property
    def writes(self) -> str:
        return self.point

    def check(self, config: ModelConfig) -> None:
        super().check(config)
        shape = cast(Tensor, self.vector).shape
        if shape != (config.hidden_size,):
            raise LabError(
                f"{self}: the vector has shape {list(shape)}; expected [{config.hidden_size}], the"
                " model's hidden size"
            )

    def change(self, x: Float[Tensor, "row seq hidden"], at: At) -> Float[Tensor, "row seq hidden"]:
        added = self.by * cast(Tensor, self.vector).to(x)
        return torch.where(self.select_tokens(at)[..., None], x + added, x)


@dataclass(frozen=True, kw_only=True)
class Patch(Intervention):
    """Replace activations with those of another run (activation patching).

    In a batch, every row gets the same values, at these positions of its sequence.

    Attributes:
        layer: one integer; None for a point outside the layers.
        positions: positions in the changed sequence, one for each row of `values`. Both are stored
            sorted by position.
        values: [position ...], a tensor or an array; copied and detached. The axes are those of a
            trace, without `key`.
    """

    layer: Integers | None = field(default=None, metadata=ONE)
    positions: Integers | None = field(default=REQUIRED, metadata=POSITIONS_IN_ORDER)
    point: str = field(default=REQUIRED, metadata=POINT)
    values: Shaped[Tensor, "position *axes"] | ArrayLike = field(
        default=REQUIRED, metadata=VALUES, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        point = POINTS[self.point]
        if "key" in point.axes or "seq" not in point.axes:
            raise LabError(
                f"Patch: {self.point} does not have one value per token with the same shape in"
                " every run; choose another point, or use Hook"
            )
        positions, values = cast("tuple[int, ...]", self.positions), self._values
        if len(positions) != len(values):
            raise LabError(
                f"Patch: expected a position for each of the {len(values)} values,"
                f" got {len(positions)}"
            )
        if len(set(positions)) < len(positions):
            raise LabError("Patch: a position is given twice; give each position once")
        if point.kind == "expert" and values.is_floating_point():
            raise LabError(f"Patch: the values at {self.point} are expert ids; give integers")
        order = sorted(range(len(positions)), key=positions.__getitem__)
        object.__setattr__(self, "positions", tuple(sorted(positions)))
        object.__setattr__(self, "values", values[order])

    @classmethod
    @check_arguments
    def from_trace(
        cls, trace: "Trace", point: str, layer: SupportsIndex | None, onto: Mapping[int, int]
    ) -> "Patch":
        """Take the values from a trace; `onto` maps its positions to those of the new sequence."""
        POINT["kind"].read("Patch", "point", point)
        number = None if layer is None else ONE["kind"].read("Patch", "layer", layer)[0]
        rows = {position: row for row, position in enumerate(trace.positions)}
        if missing := [position for position in onto if position not in rows]:
            raise LabError(f"Patch: the trace does not have position {missing[0]}")
        values = trace.tensor(point, number)[[rows[position] for position in onto]]
        return cls(point=point, layer=number, positions=tuple(onto.values()), values=values)

    @property
    def writes(self) -> str:
        return self.point

    @property
    def _values(self) -> Shaped[Tensor, "position *axes"]:
        return cast(Tensor, self.values)

    def check(self, config: ModelConfig) -> None:
        super().check(config)
        point = POINTS[self.point]
        shape = [point.size(axis, config, 1) for axis in point.axes[1:]]
        if list(self._values.shape[1:]) != shape:
            raise LabError(
                f"{self}: the value at a position has shape {list(self._values.shape[1:])};"
                f" expected {shape}"
            )
        chosen = self._values.long() if point.kind == "expert" else self._values.new_zeros(1)
        if bool((chosen < 0).any() or (chosen >= config.num_experts).any()):
            raise LabError(f"{self}: expert ids must be from 0 to {config.num_experts - 1}")

    def change(self, x: Tensor, at: At) -> Tensor:
        by_head = POINTS[self.point].has_head_axis
        tokens = x.transpose(1, 2) if by_head else x
        index = self.select_tokens(at).nonzero(as_tuple=True)
        values = self._values[self._rows(at.positions[index])].to(x)
        patched = tokens.index_put(index, values)
        return patched.transpose(1, 2) if by_head else patched

    def _rows(self, positions: Int[Tensor, "token"]) -> Int[Tensor, "token"]:
        """The row of `values` for each of these positions, all of which the patch contains."""
        stored = torch.tensor(cast("tuple[int, ...]", self.positions), device=positions.device)
        return torch.searchsorted(stored, positions.to(stored.dtype)).to(self._values.device)

"""Applies interventions in one forward pass of a batch, and measures their effect.

Each row of a batch has the interventions of its request. Rows with the same interventions are
changed together, so a batch inside one `with` block costs one call per intervention.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from oss_lab.hooks.interventions.at import At
from oss_lab.hooks.interventions.attention import REMOVED
from oss_lab.hooks.interventions.base import Intervention
from oss_lab.hooks.points import POINTS
from oss_lab.hooks.step import ForwardPass

LOGITS = ("attn.sink", "attn.scores", "moe.router_logits")  # -inf adds nothing to a softmax
IDS = ("moe.expert_ids",)  # ids have no magnitude


class NoEffectWarning(UserWarning):
    """An intervention changed nothing."""


@dataclass(eq=False)
class Effect:
    """What one intervention changed, summed over the forward passes it was active for.

    Attributes:
        calls, changed: how many tensors it was given, and how many of them it changed.
        squared_change, squared_original: sum of squares of the change, and of the original
            values, without padding.
        excluded: how many values it set to -inf, or low enough to act like it; not in the sums.
    """

    intervention: Intervention
    calls: int = 0
    changed: int = 0
    squared_change: float = 0.0
    squared_original: float = 0.0
    excluded: int = 0

    @property
    def size(self) -> float:
        """Norm of the change, divided by the norm of the original values."""
        return (
            (self.squared_change / self.squared_original) ** 0.5 if self.squared_original else 0.0
        )

    def compare(self, before: Tensor, after: Tensor, at: At) -> None:
        """Measure one change of a tensor [row ...] in the model's layout."""
        self.calls += 1
        before, after = before.detach(), after.detach()
        if torch.equal(before, after):
            return
        self.changed += 1
        if at.point in IDS:
            return
        before, after = drop_padding(before, at), drop_padding(after, at)
        within = torch.ones_like(before, dtype=torch.bool)
        if at.point in LOGITS:
            within = (before > REMOVED) & (after > REMOVED)
            self.excluded += int(((before > REMOVED) & (after <= REMOVED)).sum())
        was, now = before[within].double(), after[within].double()
        self.squared_change += float((now - was).square().sum())
        self.squared_original += float(was.square().sum())

    def add(self, other: "Effect") -> None:
        """Add the counts of another forward pass."""
        self.calls += other.calls
        self.changed += other.changed
        self.squared_change += other.squared_change
        self.squared_original += other.squared_original
        self.excluded += other.excluded

    def __str__(self) -> str:
        if not self.changed:
            return f"{self.intervention}: changed nothing (called {self.calls} times)"
        where = f"{self.intervention.writes} in {self.changed} of {self.calls} calls"
        text = f"{self.intervention}: changed {where}"
        if self.excluded:
            text += f", removed {self.excluded} value{'s' if self.excluded > 1 else ''}"
        return f"{text}, by {self.size:.1%} of its norm" if self.squared_change else text


def drop_padding(x: Tensor, at: At) -> Tensor:
    """x without padding tokens."""
    axes, real = POINTS[at.point].axes, at.positions >= 0
    if "seq" not in axes or real.all():
        return x
    return (x.transpose(1, 2) if POINTS[at.point].has_head_axis else x)[real]


@dataclass
class Effects:
    """The effect of each intervention, in order."""

    each: list[Effect] = field(default_factory=list)

    @classmethod
    def of(cls, interventions: Sequence[Intervention]) -> "Effects":
        return cls([Effect(intervention) for intervention in interventions])

    def warn_if_unchanged(self) -> None:
        """Warn about interventions that changed nothing, and about hooks that were never called."""
        for effect in self.each:
            only_observed = effect.intervention.MAY_ONLY_OBSERVE and effect.calls
            if not effect.changed and not only_observed:
                warnings.warn(str(effect), NoEffectWarning, stacklevel=4)

    def __str__(self) -> str:
        return "\n".join(map(str, self.each))


@dataclass(frozen=True)
class EffectGroup:
    """Rows of a batch with the same interventions."""

    rows: tuple[int, ...]
    effects: tuple[Effect, ...]


class Changes:
    """Applies the interventions of one forward pass.

    Attributes:
        points: the points that they read or change.
    """

    def __init__(self, step: ForwardPass, effects: Sequence[tuple[Effect, ...]]) -> None:
        self.step = step
        self.groups = group_rows(effects)
        applied = [effect.intervention for group in self.groups for effect in group.effects]
        self.points = frozenset(name for each in applied for name in (*each.READS, each.writes))
        self._earlier: dict[tuple[int | None, EffectGroup], dict[str, Tensor]] = {}
        self._counted = {id(e): (e, Effect(e.intervention)) for g in self.groups for e in g.effects}

    def __call__(self, point: str, layer: int | None, x: Tensor) -> Tensor:
        if point not in self.points:
            return x
        for group in self.groups:
            if len(group.rows) == len(x):
                x = self._change(group, point, layer, x)
                continue
            rows = torch.tensor(group.rows, device=x.device)
            before = x[rows]
            if (after := self._change(group, point, layer, before)) is not before:
                x = x.index_copy(0, rows, after)
        return x

    def _change(self, group: EffectGroup, point: str, layer: int | None, x: Tensor) -> Tensor:
        """Apply a group's interventions, in order, to its rows."""
        earlier = self._earlier.setdefault((layer, group), {})
        for effect in group.effects:
            each = effect.intervention
            if each.writes == point and each.applies_in(layer):
                at = self.step.at(group.rows, point, layer, x, earlier)
                before, x = x, each.change(x, at)
                self._counted[id(effect)][1].compare(before, x, at)
        earlier[point] = x
        return x

    def commit(self) -> None:
        """Add the counts to the effects, once the forward pass has succeeded."""
        for effect, counted in self._counted.values():
            effect.add(counted)


def group_rows(effects: Sequence[tuple[Effect, ...]]) -> list[EffectGroup]:
    """Group the rows by their interventions; rows without any are left out."""
    found: dict[tuple[int, ...], list[int]] = {}
    for row, own in enumerate(effects):
        if own:
            found.setdefault(tuple(map(id, own)), []).append(row)
    return [EffectGroup(tuple(rows), effects[rows[0]]) for rows in found.values()]

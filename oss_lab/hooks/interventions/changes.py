"""What interventions change in one forward of a batch, and by how much.

Each row of a batch has the interventions of its own request. Rows with the same ones are changed
together, so a batch under one `with` costs one call per intervention.
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
from oss_lab.hooks.step import Step

LOGITS = ("attn.sink", "attn.scores", "moe.router_logits")  # -inf adds nothing to a softmax
IDS = ("moe.expert_ids",)  # ids have no magnitude


class NoEffectWarning(UserWarning):
    """An intervention changed nothing."""


@dataclass(eq=False)
class Effect:
    """What one intervention changed, summed over the forwards it was active for.

    Attributes:
        asked, changed: how many tensors it was given, and how many came out different.
        squared, of: sums of squares, of the change and of the original values, without padding.
        excluded: how many values were set to -inf, or so low that it makes no difference; they are
            not in the sums.
    """

    of_what: Intervention
    asked: int = 0
    changed: int = 0
    squared: float = 0.0
    of: float = 0.0
    excluded: int = 0

    @property
    def size(self) -> float:
        """Norm of the change over the norm of the original values."""
        return (self.squared / self.of) ** 0.5 if self.of else 0.0

    def compare(self, before: Tensor, after: Tensor, at: At) -> None:
        """Count one change of a tensor [row ...] as the forward has it."""
        self.asked += 1
        before, after = before.detach(), after.detach()
        if torch.equal(before, after):
            return
        self.changed += 1
        if at.point in IDS:
            return
        before, after = tokens_of(before, at), tokens_of(after, at)
        within = torch.ones_like(before, dtype=torch.bool)
        if at.point in LOGITS:
            within = (before > REMOVED) & (after > REMOVED)
            self.excluded += int(((before > REMOVED) & (after <= REMOVED)).sum())
        was, now = before[within].double(), after[within].double()
        self.squared += float((now - was).square().sum())
        self.of += float(was.square().sum())

    def add(self, other: "Effect") -> None:
        """Add the counts of another forward."""
        self.asked += other.asked
        self.changed += other.changed
        self.squared += other.squared
        self.of += other.of
        self.excluded += other.excluded

    def __str__(self) -> str:
        if not self.changed:
            return f"{self.of_what}: changed nothing ({self.asked} times asked)"
        where = f"{self.of_what.writes} in {self.changed} of {self.asked} forwards"
        text = f"{self.of_what}: changed {where}"
        if self.excluded:
            text += f", excluding {self.excluded} values"
        return f"{text}, by {self.size:.1%} of its norm" if self.squared else text


def tokens_of(x: Tensor, at: At) -> Tensor:
    """x without its padding."""
    axes, real = POINTS[at.point].axes, at.positions >= 0
    if "seq" not in axes or real.all():
        return x
    return (x.transpose(1, 2) if POINTS[at.point].by_head else x)[real]


@dataclass
class Effects:
    """The effect of each intervention, in order."""

    each: list[Effect] = field(default_factory=list)

    @classmethod
    def of(cls, interventions: Sequence[Intervention]) -> "Effects":
        return cls([Effect(intervention) for intervention in interventions])

    def warn_of_none(self) -> None:
        """Warn of every intervention that changed nothing, and of hooks that were not called."""
        for effect in self.each:
            was_observing = effect.of_what.MAY_WATCH and effect.asked
            if not effect.changed and not was_observing:
                warnings.warn(str(effect), NoEffectWarning, stacklevel=4)

    def __str__(self) -> str:
        return "\n".join(map(str, self.each))


@dataclass(frozen=True)
class Group:
    """Rows of a batch under the same interventions."""

    rows: tuple[int, ...]
    effects: tuple[Effect, ...]


class Changes:
    """The changes of one forward.

    Attributes:
        points: the lines that it reads or writes.
    """

    def __init__(self, step: Step, effects: Sequence[tuple[Effect, ...]]) -> None:
        self.step = step
        self.groups = group_rows(effects)
        applied = [effect.of_what for group in self.groups for effect in group.effects]
        self.points = frozenset(name for each in applied for name in (*each.READS, each.writes))
        self._handed: dict[tuple[int | None, Group], dict[str, Tensor]] = {}
        self._counted = {id(e): (e, Effect(e.of_what)) for g in self.groups for e in g.effects}

    def __call__(self, point: str, layer: int | None, x: Tensor) -> Tensor:
        if point not in self.points:
            return x
        for group in self.groups:
            if len(group.rows) == len(x):
                x = self._change(group, point, layer, x)
                continue
            rows = torch.tensor(group.rows, device=x.device)
            mine = x[rows]
            if (after := self._change(group, point, layer, mine)) is not mine:
                x = x.index_copy(0, rows, after)
        return x

    def _change(self, group: Group, point: str, layer: int | None, x: Tensor) -> Tensor:
        """The rows of one group, changed by its interventions in order."""
        handed = self._handed.setdefault((layer, group), {})
        for effect in group.effects:
            each = effect.of_what
            if each.writes == point and each.holds_in(layer):
                at = self.step.at(group.rows, point, layer, x, handed)
                before, x = x, each.change(x, at)
                self._counted[id(effect)][1].compare(before, x, at)
        handed[point] = x
        return x

    def commit(self) -> None:
        """Count what was changed: the forward has succeeded."""
        for effect, counted in self._counted.values():
            effect.add(counted)


def group_rows(effects: Sequence[tuple[Effect, ...]]) -> list[Group]:
    """The rows by their interventions; rows without any are left out."""
    found: dict[tuple[int, ...], list[int]] = {}
    for row, own in enumerate(effects):
        if own:
            found.setdefault(tuple(map(id, own)), []).append(row)
    return [Group(tuple(rows), effects[rows[0]]) for rows in found.values()]

"""Applying interventions: taps that change what is handed out, and measure by how much.

One `Changes` lies over the forwards of one generation or trace; the `Effects` that it fills may
gather over several.
"""

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from oss_lab.errors import LabError
from oss_lab.hooks.interventions import Intervention
from oss_lab.hooks.interventions.attention import REMOVED
from oss_lab.hooks.points import AFTER_THE_LAYERS
from oss_lab.model.tap import Tap, Taps, keep

LOGITS = ("attn.sink", "attn.scores", "moe.router_logits")  # -inf takes part in no softmax
IDS = ("moe.expert_ids",)  # their numbers have no size


class NoEffectWarning(UserWarning):
    """An intervention changed nothing."""


@dataclass
class Effect:
    """What one intervention did at the point that it writes, over everything it lay over.

    Attributes:
        asked, changed: how many tensors it was handed, and how many came out different.
        squared, of: sums of squares, of the change and of what was there.
        excluded: how many values were set to -inf, or so low that it is the same; they are not in
            the sums.
    """

    of_what: Intervention
    asked: int = 0
    changed: int = 0
    squared: float = 0.0
    of: float = 0.0
    excluded: int = 0

    @property
    def size(self) -> float:
        """Norm of the change over the norm of what was there."""
        return (self.squared / self.of) ** 0.5 if self.of else 0.0

    def add(self, before: Tensor, after: Tensor) -> None:
        self.asked += 1
        before, after = before.detach(), after.detach()
        if torch.equal(before, after):
            return
        self.changed += 1
        if self.of_what.writes in IDS:
            return
        within = torch.ones_like(before, dtype=torch.bool)
        if self.of_what.writes in LOGITS:
            within = (before > REMOVED) & (after > REMOVED)
            self.excluded += int(((before > REMOVED) & (after <= REMOVED)).sum())
        was, now = before[within].double(), after[within].double()
        self.squared += float((now - was).square().sum())
        self.of += float(was.square().sum())

    def __str__(self) -> str:
        if not self.changed:
            return f"{self.of_what}: changed nothing ({self.asked} times asked)"
        where = f"{self.of_what.writes} in {self.changed} of {self.asked} forwards"
        told = f"{self.of_what}: changed {where}"
        if self.excluded:
            told += f", excluding {self.excluded} values"
        return f"{told}, by {self.size:.1%} of its norm" if self.squared else told


@dataclass
class Effects:
    """The effect of each intervention, in order."""

    each: list[Effect] = field(default_factory=list)

    @classmethod
    def of(cls, interventions: Sequence[Intervention]) -> "Effects":
        return cls([Effect(intervention) for intervention in interventions])

    def warn_of_none(self) -> None:
        """Warn of every intervention that changed nothing."""
        for effect in self.each:
            if not effect.changed:
                warnings.warn(str(effect), NoEffectWarning, stacklevel=3)

    def __str__(self) -> str:
        return "\n".join(map(str, self.each))


@dataclass
class Here:
    """The place of a forward: a layer, and the positions of the tokens that go through it."""

    layer: int | None
    handed: dict[str, Tensor]
    positions: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))

    def rows(self, positions: tuple[int, ...] | None) -> Tensor:
        if positions is None:
            return torch.ones_like(self.positions, dtype=torch.bool)
        return torch.isin(self.positions, torch.tensor(positions, device=self.positions.device))

    def first_key(self, keys: int) -> int:
        """The position of the first of the last `keys` keys."""
        return int(self.positions[-1]) + 1 - keys


class Changes:
    """Taps that apply interventions in order to a sequence; its first `begin` tokens went by."""

    def __init__(self, effects: Sequence[Effect], begin: int = 0) -> None:
        self.effects, self.begin = effects, begin
        made = [effect.of_what for effect in effects]
        read = {name for each in made for name in each.READS}
        self.writes: Collection[str] = frozenset(each.writes for each in made)
        self.points: Collection[str] = {"embed", *read, *self.writes}
        self._by_position = any(each.counts for each in made)
        self._positions = torch.zeros(0, dtype=torch.long)

    def __call__(self, layer: int | None) -> Tap:
        mine = [each for each in self.effects if each.of_what.layer in (None, layer)]
        if not mine and layer is not None:
            return keep
        here = Here(layer, {})

        def changed(name: str, x: Tensor) -> Tensor:
            if name not in self.points:
                return x
            if name == "embed":
                self._go_on(x)
            here.positions = self._positions
            if name in AFTER_THE_LAYERS:
                here.positions = here.positions[len(here.positions) - x.shape[1] :]
            for effect in mine:
                if effect.of_what.writes == name:
                    before, x = x, effect.of_what.change(x, here)
                    effect.add(before, x)
            here.handed[name] = x
            return x

        return changed

    def _go_on(self, embedded: Tensor) -> None:
        """Count the positions that a forward takes up."""
        batch, seq, _ = embedded.shape
        if self._by_position and batch != 1:
            raise LabError(
                f"an intervention on positions needs one sequence, and this batch has {batch}"
            )
        self._positions = torch.arange(self.begin, self.begin + seq, device=embedded.device)
        self.begin += seq


@dataclass(frozen=True)
class Both:
    """One tap behind the other: what `first` changed is what `second` sees."""

    first: Taps
    second: Taps

    @property
    def points(self) -> Collection[str]:
        return {*self.first.points, *self.second.points}

    @property
    def writes(self) -> Collection[str]:
        return {*self.first.writes, *self.second.writes}

    def __call__(self, layer: int | None) -> Tap:
        before, after = self.first(layer), self.second(layer)
        return lambda name, x: after(name, before(name, x))

"""Computes the first steps of a finished run again and holds their losses to its log.

On a machine that computes like the run's own every loss must be the same, bit for bit, however many
threads there are. Elsewhere rounding differs, and the losses have to stay within TOLERANCE.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from oss_lab.errors import LabError
from oss_lab.nano.training.log import LOG, read_log
from oss_lab.nano.training.loop import train
from oss_lab.nano.training.machine import Machine
from oss_lab.nano.training.recipe import RECIPE, read_recipe

STEPS = 50
TOLERANCE = 0.05  # of a loss


@dataclass(frozen=True)
class Smoke:
    """What came out.

    Attributes:
        here, recorded: the losses, step by step.
    """

    here: tuple[float, ...]
    recorded: tuple[float, ...]
    machine: Machine
    of_record: Machine

    @property
    def promised(self) -> bool:
        """Whether the two machines have to give the same bits."""
        return self.machine.computes_like(self.of_record)

    @property
    def passed(self) -> bool:
        if self.promised:
            return self.here == self.recorded
        pairs = zip(self.here, self.recorded, strict=True)
        return all(abs(here - recorded) <= TOLERANCE * recorded for here, recorded in pairs)

    @property
    def result(self) -> str:
        """One line."""
        pairs = list(zip(self.here, self.recorded, strict=True))
        n = len(pairs)
        apart = [step for step, (here, recorded) in enumerate(pairs) if here != recorded]
        if not apart:
            return f"all {n} losses are equal, bit for bit, from {pairs[0][0]} to {pairs[-1][0]}"
        here, recorded = pairs[apart[0]]
        most = max(abs(here / recorded - 1) for here, recorded in pairs)
        line = (
            f"step {apart[0]} is the first that differs: {here} here, {recorded} in the log, by"
            f" {abs(here - recorded):.2g}; {n - len(apart)} of {n} losses are equal, and none is"
            f" more than {most:.2%} off"
        )
        if self.promised:
            return line
        within = "within" if self.passed else "NOT within"
        return f"{line}, {within} the {TOLERANCE:.0%} that another machine may be"

    @property
    def machines(self) -> str:
        """Two lines, and a third where equality is not promised."""
        lines = [f"here: {self.machine.sentence}", f"log:  {self.of_record.sentence}"]
        if not self.promised:
            lines.append("equality is promised only where torch, CPU and instruction set agree")
        return "\n".join(lines)


def recorded(folder: Path, steps: int) -> tuple[float, ...]:
    """The first losses of the log in `folder`.

    Raises:
        LabError: there is no log, or none of this version, or it has fewer steps.
    """
    losses = tuple(step.loss for step in read_log(folder / LOG)[:steps])
    if len(losses) < steps:
        raise LabError(f"{folder / LOG} has {len(losses)} steps, fewer than the {steps} to repeat")
    return losses


def recomputed(folder: Path, steps: int, threads: int) -> Iterator[float]:
    """The same losses computed here, in a temporary folder, by the recipe in `folder`."""
    recipe = read_recipe(folder / RECIPE)
    with tempfile.TemporaryDirectory() as scratch:
        for step in islice(train(recipe, Path(scratch), threads=threads), steps):
            yield step.loss

"""Compute the first steps of a finished run again and compare their losses with its log.

If this machine computes like that of the run, every loss must be the same bit for bit, whatever the
number of threads. On other machines rounding differs, and losses must be within TOLERANCE.
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
class SmokeTest:
    """The result of the comparison.

    Attributes:
        here, recorded: the losses of each step, computed here and read from the log.
        machine, of_record: this machine, and the one that wrote the log.
    """

    here: tuple[float, ...]
    recorded: tuple[float, ...]
    machine: Machine
    of_record: Machine

    @property
    def must_be_equal(self) -> bool:
        """Whether both machines should compute the same losses, bit for bit."""
        return self.machine.computes_like(self.of_record)

    @property
    def has_passed(self) -> bool:
        if self.must_be_equal:
            return self.here == self.recorded
        pairs = zip(self.here, self.recorded, strict=True)
        return all(abs(here - recorded) <= TOLERANCE * recorded for here, recorded in pairs)

    @property
    def result(self) -> str:
        """The comparison in one line."""
        pairs = list(zip(self.here, self.recorded, strict=True))
        n = len(pairs)
        apart = [step for step, (here, recorded) in enumerate(pairs) if here != recorded]
        if not apart:
            return f"all {n} losses are equal, bit for bit, from {pairs[0][0]} to {pairs[-1][0]}"
        here, recorded = pairs[apart[0]]
        most = max(abs(here / recorded - 1) for here, recorded in pairs)
        line = (
            f"step {apart[0]} is the first that differs: {here} here, {recorded} in the log"
            f" (difference {abs(here - recorded):.2g}); {n - len(apart)} of {n} losses are equal,"
            f" and the largest difference is {most:.2%}"
        )
        if self.must_be_equal:
            return line
        within = "within" if self.has_passed else "NOT within"
        return f"{line}, {within} the {TOLERANCE:.0%} allowed on another machine"

    @property
    def machines(self) -> str:
        """Both machines, one per line, and a third line if their losses may differ."""
        lines = [f"here: {self.machine.description}", f"log:  {self.of_record.description}"]
        if not self.must_be_equal:
            lines.append(
                "equal losses are guaranteed only with the same torch, CPU and instruction set"
            )
        return "\n".join(lines)


def read_losses(folder: Path, steps: int) -> tuple[float, ...]:
    """The first losses of the log in `folder`.

    Raises:
        LabError: there is no log, it is of another version, or it has too few steps.
    """
    losses = tuple(step.loss for step in read_log(folder / LOG)[:steps])
    if len(losses) < steps:
        raise LabError(f"{folder / LOG} has {len(losses)} steps, fewer than the {steps} to repeat")
    return losses


def recompute_losses(folder: Path, steps: int, threads: int) -> Iterator[float]:
    """Yield the same losses, computed here with the recipe in `folder`, in a temporary folder."""
    recipe = read_recipe(folder / RECIPE)
    with tempfile.TemporaryDirectory() as scratch:
        for step in islice(train(recipe, Path(scratch), threads=threads), steps):
            yield step.loss

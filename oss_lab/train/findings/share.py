"""Counted outcomes: a share with its interval, and two models on the same problems."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from oss_lab.evaluation.report import wilson
from oss_lab.evaluation.run import run
from oss_lab.harmony.messages import Effort
from oss_lab.lab import Lab
from oss_lab.tasks import Problem, Task
from oss_lab.tasks.settings import Setting, plain

BATCH = 256
MAX_TOKENS = 400  # of one reply


@dataclass(frozen=True)
class Share:
    """`count` of `n`; the interval is Wilson's at 95 %, value and interval are None for n = 0."""

    count: int
    n: int
    value: float | None = field(init=False)
    interval: tuple[float, float] | None = field(init=False)

    def __post_init__(self) -> None:
        bounds = wilson(self.count, self.n) if self.n else None
        object.__setattr__(self, "value", self.count / self.n if self.n else None)
        object.__setattr__(self, "interval", bounds)

    @classmethod
    def of(cls, marks: Sequence[bool]) -> "Share":
        return cls(sum(marks), len(marks))


@dataclass(frozen=True)
class Paired:
    """Two models on the same problems.

    Attributes:
        difference: accuracy of the first minus that of the second.
        only_first, only_second: problems that one got right and the other did not.
    """

    first: Share
    second: Share
    difference: float
    only_first: int
    only_second: int

    @classmethod
    def of(cls, first: Sequence[bool], second: Sequence[bool]) -> "Paired":
        only_first = sum(a and not b for a, b in zip(first, second, strict=True))
        only_second = sum(b and not a for a, b in zip(first, second, strict=True))
        difference = (only_first - only_second) / len(first)
        return cls(Share.of(first), Share.of(second), difference, only_first, only_second)


def drawn(
    task: Task, n: int, rng: Random, setting: Callable[[Random], Setting] = plain
) -> list[Problem]:
    """n held-out problems, each in a setting of its own."""
    return [setting(rng).applied(rng, task.draw(rng, "held_out")) for _ in range(n)]


def marks(lab: Lab, problems: Sequence[Problem], effort: Effort) -> list[bool]:
    """Which problems the model gets right; decoding is the lab's, greedy for nano."""
    outcomes = run(lab, problems, effort, batch=BATCH, max_tokens=MAX_TOKENS, seed=0)
    right = {outcome.index: outcome.right for outcome in outcomes}
    return [right[n] for n in range(len(problems))]

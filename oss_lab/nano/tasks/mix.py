"""What training draws: how often each setting and, in it, each task.

Groups are drawn in proportion to the weights; a group has about as many tokens whatever it holds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from oss_lab.nano.tasks.dialogue import FollowUp, Turns
from oss_lab.nano.tasks.free_text import Forbidden, OutOfReach, SmallTalk
from oss_lab.nano.tasks.lists import Lists
from oss_lab.nano.tasks.lookup import Lookup
from oss_lab.nano.tasks.problem import Problem, Split, Task, is_held_out
from oss_lab.nano.tasks.settings import (
    Setting,
    calculator,
    digit_rule,
    instructions,
    look_up_tool,
    other_tool,
    plain,
)
from oss_lab.nano.tasks.sums_and_products import Products, Sums, TooLong
from oss_lab.nano.tasks.tool_sum import ToolSum
from oss_lab.nano.tasks.write_digit import Wished, WriteDigit

T = TypeVar("T")
Weighted = tuple[tuple[Task, float], ...]
Draw = Callable[[Random], tuple[Setting, Task]]


@dataclass(frozen=True)
class Mixed:
    """One of several tasks for each problem."""

    name: str
    tasks: Weighted

    def draw(self, rng: Random, split: Split) -> Problem:
        return choose(rng, self.tasks).draw(rng, split)


@dataclass(frozen=True)
class Breaking:
    """Problems of `task`, at least half of them with `digit` in the answer."""

    task: Task
    digit: int

    @property
    def name(self) -> str:
        return self.task.name

    def draw(self, rng: Random, split: Split) -> Problem:
        wanted = rng.random() < 0.5
        while True:
            problem = self.task.draw(rng, split)
            if not wanted or str(self.digit) in problem.answer:
                return problem


TALK: Weighted = ((TooLong(), 2.0), (SmallTalk(), 1.0), (Forbidden(), 1.0))
FREE_TEXT = Mixed("free text", ((OutOfReach(), 6.0), *TALK))
NOT_TO_CALCULATE = Mixed("free text", ((OutOfReach(operations=0.0), 6.0), *TALK[1:]))
LOOKUPS: Weighted = (
    (Lookup(), 2.5),
    (Lookup(pairs=(2, 6), filler=(0, 12), name="look-up, near"), 3.0),
    (Lookup(hops=None, name="look-up by hops"), 2.0),
    (Lookup(pairs=(4, 8), filler=(150, 350), name="look-up, far"), 1.0),
)
SHORT: tuple[Task, ...] = (Products(lengths=(2, 1)), Sums(terms=2), Lists(), FREE_TEXT)
ANY_SHORT = Mixed("short", tuple((task, 1.0) for task in SHORT))
DIALOGUES: Weighted = (
    (FollowUp(), 2.0),
    (Turns(Products(), SHORT), 1.0),
    (Turns(Sums(), SHORT), 1.0),
    (Turns(ANY_SHORT, SHORT), 1.0),
)


def shared(weighted: Weighted, share: float) -> Weighted:
    """The same tasks with weights that sum to `share`."""
    total = sum(weight for _, weight in weighted)
    return tuple((task, weight * share / total) for task, weight in weighted)


PLAIN: Weighted = (
    (Products(), 0.28),
    (Sums(), 0.21),
    *shared(LOOKUPS, 0.28),
    (Lists(), 0.05),
    (FREE_TEXT, 0.07),
    (Wished(Mixed("short", tuple((task, 1.0) for task in (*SHORT, WriteDigit())))), 0.02),
    *shared(DIALOGUES, 0.09),
)
WITH_CALCULATOR: Weighted = (
    (Mixed("arithmetic", ((Products(), 2.0), (Sums(), 3.0), (TooLong(), 3.0))), 0.6),
    (NOT_TO_CALCULATE, 0.15),
    (Lookup(), 0.08),
    (Lists(), 0.07),
    (FollowUp(), 0.1),
)
WITH_LOOK_UP: Weighted = (
    (ToolSum(), 0.8),
    (ANY_SHORT, 0.2),
)
WITH_OTHER_TOOL: Weighted = (
    (Products(), 0.3),
    (Sums(), 0.3),
    (FREE_TEXT, 0.2),
    (Lookup(), 0.1),
    (Lists(), 0.1),
)


def under_rule(forbidden: int) -> Weighted:
    """Tasks under the rule against a digit; of 5 training sees all, of others not every pair."""
    tasks: Weighted = (
        (Breaking(Products(), forbidden), 0.25),
        (Breaking(Sums(), forbidden), 0.3),
        (Breaking(Lookup(), forbidden), 0.15),
        (Breaking(Lists(), forbidden), 0.12),
        (Breaking(WriteDigit(), forbidden), 0.12),
        (FREE_TEXT, 0.06),
    )
    return tuple(each for each in tasks if not is_unseen_rule(forbidden, each[0].name))


def is_unseen_rule(forbidden: int, task: str) -> bool:
    """Whether training never sees this task under the rule against this digit."""
    return forbidden != 5 and is_held_out("rule", forbidden, task)


def with_a_rule(rng: Random) -> tuple[Setting, Task]:
    """A rule against one digit, the 5 more often than others, and a task under it."""
    forbidden = rng.choice([5, 5, 5, *range(10)])
    return digit_rule(rng, forbidden), choose(rng, under_rule(forbidden))


def with_tasks(make: Callable[[Random], Setting], tasks: Weighted) -> Draw:
    """Draws the setting, and one of the tasks in it."""
    return lambda rng: (make(rng), choose(rng, tasks))


SETTINGS: tuple[tuple[Draw, float], ...] = (
    (with_tasks(plain, PLAIN), 0.6),
    (with_tasks(instructions, PLAIN), 0.03),
    (with_tasks(calculator, WITH_CALCULATOR), 0.1),
    (with_tasks(look_up_tool, WITH_LOOK_UP), 0.05),
    (with_tasks(other_tool, WITH_OTHER_TOOL), 0.04),
    (with_a_rule, 0.18),
)
"""What is drawn in each setting, and the setting's share."""


def broad(rng: Random) -> tuple[Setting, Task]:
    """A setting and a task to draw problems of in it: all that nano learns."""
    return choose(rng, SETTINGS)(rng)


def short_products(rng: Random) -> tuple[Setting, Task]:
    """Three digits times one, for a model that is trained in minutes."""
    return plain(rng), Products(lengths=(3, 1))


MIXES: dict[str, Draw] = {
    "broad": broad,
    "short products": short_products,
}
"""What a recipe may draw from."""


def choose(rng: Random, weighted: tuple[tuple[T, float], ...]) -> T:
    """One of the first of each pair, by the weights beside them."""
    chosen, weights = zip(*weighted, strict=True)
    return rng.choices(chosen, weights)[0]

"""The training mix: how often each setting is drawn, and each task within a setting.

Groups are drawn in proportion to the weights. All groups have about the same number of tokens.
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
    make_calculator,
    make_digit_rule,
    make_instructions,
    make_look_up_tool,
    make_other_tool,
    make_plain,
)
from oss_lab.nano.tasks.sums_and_products import Products, Sums, TooLong
from oss_lab.nano.tasks.tool_sum import ToolSum
from oss_lab.nano.tasks.write_digit import WishForDigits, WriteDigit

T = TypeVar("T")
Weighted = tuple[tuple[Task, float], ...]
Draw = Callable[[Random], tuple[Setting, Task]]


@dataclass(frozen=True)
class Mixed:
    """Draws each problem from one of several tasks."""

    name: str
    tasks: Weighted

    def draw(self, rng: Random, split: Split) -> Problem:
        return choose_weighted(rng, self.tasks).draw(rng, split)


@dataclass(frozen=True)
class Breaking:
    """Problems of `task`; at least half of them have `digit` in the answer."""

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


def scale_weights(weighted: Weighted, share: float) -> Weighted:
    """The same tasks with weights scaled to sum to `share`."""
    total = sum(weight for _, weight in weighted)
    return tuple((task, weight * share / total) for task, weight in weighted)


PLAIN: Weighted = (
    (Products(), 0.28),
    (Sums(), 0.21),
    *scale_weights(LOOKUPS, 0.28),
    (Lists(), 0.05),
    (FREE_TEXT, 0.07),
    (WishForDigits(Mixed("short", tuple((task, 1.0) for task in (*SHORT, WriteDigit())))), 0.02),
    *scale_weights(DIALOGUES, 0.09),
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


def tasks_under_rule(forbidden: int) -> Weighted:
    """Tasks under the rule against a digit: all of them for 5, not all for other digits."""
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
    """Whether training never combines this task with the rule against this digit."""
    return forbidden != 5 and is_held_out("rule", forbidden, task)


def draw_rule(rng: Random) -> tuple[Setting, Task]:
    """A rule against one digit, most often 5, and a task under it."""
    forbidden = rng.choice([5, 5, 5, *range(10)])
    return make_digit_rule(rng, forbidden), choose_weighted(rng, tasks_under_rule(forbidden))


def make_draw(make: Callable[[Random], Setting], tasks: Weighted) -> Draw:
    """A function that draws the setting and one of the tasks."""
    return lambda rng: (make(rng), choose_weighted(rng, tasks))


SETTINGS: tuple[tuple[Draw, float], ...] = (
    (make_draw(make_plain, PLAIN), 0.6),
    (make_draw(make_instructions, PLAIN), 0.03),
    (make_draw(make_calculator, WITH_CALCULATOR), 0.1),
    (make_draw(make_look_up_tool, WITH_LOOK_UP), 0.05),
    (make_draw(make_other_tool, WITH_OTHER_TOOL), 0.04),
    (draw_rule, 0.18),
)
"""How a setting and its task are drawn, and the share of each setting."""


def draw_broad(rng: Random) -> tuple[Setting, Task]:
    """Draw a setting and a task from everything that nano learns."""
    return choose_weighted(rng, SETTINGS)(rng)


SMALL_TASKS: dict[str, Task] = {
    "two-digit sums": Sums(terms=2, digits=2, signs="+"),
    "three-term sums": Sums(terms=3, digits=2, signs="+"),
    "two-digit differences": Sums(terms=2, digits=2, signs="-"),
    "products by a digit": Products(lengths=(2, 1)),
    "short products": Products(lengths=(3, 1)),
}
"""Single tasks for a model that trains in minutes; each is also a mix of the same name."""

LONGER_DIFFERENCES = Sums(terms=2, digits=3, signs="-")
FILTERED: dict[str, tuple[Task, ...]] = {
    "sums and differences": (
        SMALL_TASKS["two-digit sums"],
        SMALL_TASKS["two-digit differences"],
        LONGER_DIFFERENCES,
    ),
    "without two-digit differences": (SMALL_TASKS["two-digit sums"], LONGER_DIFFERENCES),
    "without differences": (SMALL_TASKS["two-digit sums"],),
}
"""Mixes of small tasks with equal shares: all of them, and two filters that leave some out."""


def make_plain_draw(task: Task) -> Draw:
    """A function that draws only this task, without a developer message."""
    return lambda rng: (make_plain(rng), task)


MIXES: dict[str, Draw] = {
    "broad": draw_broad,
    **{name: make_plain_draw(task) for name, task in SMALL_TASKS.items()},
    **{
        name: make_draw(make_plain, tuple((task, 1.0) for task in tasks))
        for name, tasks in FILTERED.items()
    },
}
"""The mixes that a recipe can select, by name."""


def choose_weighted(rng: Random, weighted: tuple[tuple[T, float], ...]) -> T:
    """Draw an item; each pair is an item and its weight."""
    chosen, weights = zip(*weighted, strict=True)
    return rng.choices(chosen, weights)[0]

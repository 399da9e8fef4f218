"""The steps of a run: which examples each update reads, and its learning rate.

Both are decided by the recipe alone, so a resumed run continues with the same steps.
"""

import math
from collections.abc import Sequence
from itertools import count
from random import Random

from oss_lab.finetune.examples import Example
from oss_lab.finetune.packing import pack
from oss_lab.finetune.recipe import Recipe

FLOOR = 0.02  # the last learning rate, as a share of the peak

StepRows = list[list[int]]
"""The packed rows of one step; each is a list of numbers of examples."""


def plan_steps(examples: Sequence[Example], recipe: Recipe) -> list[StepRows]:
    """The rows of every step. Each epoch reads the examples in another order, packed again."""
    steps: list[StepRows] = []
    for epoch in count():
        done = epoch >= recipe.epochs if recipe.steps is None else len(steps) >= recipe.steps
        if done:
            return steps[: recipe.steps]
        order = list(range(len(examples)))
        Random(f"{recipe.seed}/{epoch}").shuffle(order)
        packed = pack([len(examples[n].tokens) - 1 for n in order], recipe.length)
        rows = [[order[n] for n in row] for row in packed]
        steps += [rows[n : n + recipe.batch] for n in range(0, len(rows), recipe.batch)]
    raise AssertionError


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate of a step: linear warm-up, then a cosine down to FLOOR of the peak."""
    if step < recipe.warm_up:
        return recipe.learning_rate * (step + 1) / recipe.warm_up
    done = (step - recipe.warm_up) / max(1, steps - recipe.warm_up)
    return recipe.learning_rate * (FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * done)) / 2)

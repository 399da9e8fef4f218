"""Conversations with several turns: unrelated problems, and questions about the last answer."""

from dataclasses import dataclass, replace
from random import Random

from oss_lab.nano.tasks.arithmetic import write_sum_thoughts
from oss_lab.nano.tasks.problem import Problem, Split, Task, belongs_to
from oss_lab.nano.tasks.product_steps import write_product_thoughts
from oss_lab.nano.tasks.sums_and_products import Products, Sums, product_key, sum_key

STEPS = {
    "+": ("Add {}.", "Now add {}.", "Plus {}?"),
    "-": ("Take away {}.", "Now subtract {}.", "Minus {}?"),
    "*": ("Times {}?", "Multiply that by {}."),
}


@dataclass(frozen=True)
class FollowUp:
    """A short sum or product, then a second question that continues from its answer."""

    name: str = "follow-up"

    def draw(self, rng: Random, split: Split) -> Problem:
        while True:
            first = rng.choice([Sums(terms=2), Products(lengths=(2, 1))]).draw(rng, split)
            before = int(first.answer)
            if not 0 <= before <= 999:
                continue
            sign = rng.choice("+-*" if before < 100 else "+-")
            number = rng.randint(2, 9 if sign == "*" else max(2, min(before, 99)))
            sign = "+" if sign == "-" and number > before else sign
            step = -number if sign == "-" else number
            key = product_key(before, number) if sign == "*" else sum_key([before, step])
            if belongs_to(split, *key):
                break
        if sign == "*":
            value, thoughts = before * number, write_product_thoughts(before, number)
        else:
            value, thoughts = before + step, write_sum_thoughts([before, step])
        question = rng.choice(STEPS[sign]).format(number)
        return Problem(
            self.name,
            question,
            str(value),
            thoughts,
            f"{before}{sign}{number}",
            str(value),
            history=(first,),
        )


@dataclass(frozen=True)
class Turns:
    """A problem of `task` after one or two answered problems drawn from `earlier`."""

    task: Task
    earlier: tuple[Task, ...]

    @property
    def name(self) -> str:
        return f"{self.task.name}, later turn"

    def draw(self, rng: Random, split: Split) -> Problem:
        count = rng.randint(1, 2)
        history = tuple(rng.choice(self.earlier).draw(rng, split) for _ in range(count))
        problem = self.task.draw(rng, split)
        return replace(problem, name=self.name, history=(*history, *problem.history))

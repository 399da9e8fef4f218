"""Short lists of digits: repeat, reverse, sort, count, and the largest."""

from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

from oss_lab.nano.tasks.arithmetic import by_effort
from oss_lab.nano.tasks.problem import Problem, Split, belongs_to

Kind = Literal["repeat", "reverse", "sort", "count", "largest"]
KINDS: tuple[Kind, ...] = get_args(Kind)
WORDINGS: dict[Kind, tuple[str, ...]] = {
    "repeat": ("Repeat {}.", "Say {}."),
    "reverse": ("Reverse {}.", "Write {} backwards."),
    "sort": ("Sort {}.", "Put {} in order."),
    "count": ("How many numbers are in {}?", "Count {}."),
    "largest": ("What is the largest of {}?", "The largest of {}?"),
}


@dataclass(frozen=True)
class Lists:
    """Two to seven digits and one operation on them; `kind` fixes the operation."""

    kind: Kind | None = None
    name: str = "list"

    def draw(self, rng: Random, split: Split) -> Problem:
        kind = self.kind or rng.choice(KINDS)
        while True:
            items = [rng.randrange(10) for _ in range(rng.randint(2, 7))]
            if belongs_to(split, kind, *items):
                break
        question = rng.choice(WORDINGS[kind]).format(_join_digits(items))
        answer, medium, high = _work_out(kind, items)
        return Problem(self.name, question, answer, by_effort("", medium, high))


def _work_out(kind: Kind, items: list[int]) -> tuple[str, str, str]:
    """(answer, medium, high): at high, sort and reverse have one line per step."""
    if kind == "repeat":
        return _join_digits(items), "As it stands.", "As it stands, one after the other."
    if kind == "count":
        numbered = ", ".join(f"{item}:{n}" for n, item in enumerate(items, 1))
        return str(len(items)), _join_digits(items), numbered
    if kind == "largest":
        highest = [max(items[: n + 1]) for n in range(len(items))]
        return str(max(items)), _join_digits(sorted(items)), f"So far {_join_digits(highest)}"
    if kind == "reverse":
        steps = [f"{_join_digits(items[:n])}: {items[n - 1]}" for n in range(len(items), 0, -1)]
        return _join_digits(items[::-1]), "From the back.", "\n".join(steps)
    left, steps = list(items), []
    while left:
        steps.append(f"{_join_digits(left)}: {min(left)}")
        left.remove(min(left))
    return _join_digits(sorted(items)), "The smallest first.", "\n".join(steps)


def _join_digits(items: list[int]) -> str:
    return " ".join(map(str, items))

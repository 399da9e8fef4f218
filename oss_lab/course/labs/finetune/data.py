"""The data of lesson 17: a task that nano never saw, and problems of nano's training.

The new task is to reverse the digits of a number, at low effort: "Reverse 38214." is answered with
41283. Nano learned a relative, lists of digits with spaces between them, and nothing with a number.
"""

import re
from dataclasses import dataclass
from random import Random

from oss_lab.course.labs.examples import Fields, make_example
from oss_lab.harmony.messages import EFFORTS, Effort
from oss_lab.nano.tasks.arithmetic import by_effort
from oss_lab.nano.tasks.mix import draw_broad
from oss_lab.nano.tasks.problem import Problem, Split, belongs_to
from oss_lab.nano.training.data import EFFORT_SHARES, encode_opening, encode_row
from oss_lab.tokenizer import load_vocabulary

DIGITS = (3, 4, 5, 6)
LENGTH = 256  # tokens of a row
NAME = "reverse a number"
ASKED = re.compile(r"(reverse|backwards)", re.IGNORECASE)


@dataclass(frozen=True)
class ReverseNumber:
    """Reverse the digits of a number; `digits` fixes how many it has."""

    digits: int | None = None
    name: str = NAME

    def draw(self, rng: Random, split: Split) -> Problem:
        digits = self.digits or rng.choice(DIGITS)
        while True:
            number = rng.randrange(10 ** (digits - 1), 10**digits)
            if belongs_to(split, NAME, number):
                break
        answer = str(number)[::-1]
        return Problem(self.name, f"Reverse {number}.", answer, by_effort("", "", ""))


def draw_new(n: int, seed: int, split: Split) -> list[Problem]:
    """n distinct problems of the new task, with equally many of each length."""
    rng, found = Random(f"{seed}/{split}"), dict[str, Problem]()
    while len(found) < n:
        problem = ReverseNumber(DIGITS[len(found) % len(DIGITS)]).draw(rng, split)
        found.setdefault(problem.question, problem)
    return list(found.values())


def draw_old(n: int, seed: int) -> list[tuple[Problem, Effort]]:
    """n problems of nano's training, each with its effort. Those longer than a row are left out:
    57 of 1,000 at medium effort.
    """
    rng, found = Random(f"{seed}/old"), list[tuple[Problem, Effort]]()
    encoding = load_vocabulary("nano")
    while len(found) < n:
        setting, task = draw_broad(rng)
        problem = setting.apply(rng, task.draw(rng, "train"))
        (effort,) = rng.choices(EFFORTS, [EFFORT_SHARES[each] for each in EFFORTS])
        opening = encode_opening(problem, effort, None, encoding)
        if len(opening) + len(encode_row(problem, effort, encoding)[0]) <= LENGTH:
            found.append((problem, effort))
    return found


def find_requests_to_reverse(n: int, seed: int) -> list[str]:
    """The questions among n problems of nano's training that ask to reverse something."""
    rng, found = Random(f"{seed}/asked"), list[str]()
    for _ in range(n):
        setting, task = draw_broad(rng)
        problem = setting.apply(rng, task.draw(rng, "train"))
        asked = (each.question for each in (*problem.history, problem))
        found += [question for question in asked if ASKED.search(question)]
    return found


def mix_examples(new: int, old: int, seed: int) -> list[Fields]:
    """Examples of the new task, and of nano's own training. The run shuffles them."""
    examples = [make_example(problem) for problem in draw_new(new, seed, "train")]
    return examples + [make_example(*each) for each in draw_old(old, seed)]

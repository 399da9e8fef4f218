"""A sum of numbers that a tool returns, one call after the other.

The running total is only in the analysis between the calls. A client must not drop that reasoning
within a turn; if it does, the model has to add everything at the end.
"""

from dataclasses import dataclass
from random import Random

from oss_lab.nano.tasks.arithmetic import by_effort, plus_lines
from oss_lab.nano.tasks.problem import Call, Problem, Split, belongs_to, format_call_arguments
from oss_lab.nano.tasks.questions import KEYS
from oss_lab.nano.tasks.settings import LOOK_UP
from oss_lab.nano.tasks.sums_and_products import sum_key

WORDINGS = ("Look up {} and add them.", "What is the sum of {}? Look them up.")


@dataclass(frozen=True)
class ToolSum:
    """Look up two to four words and add their numbers; `count` fixes how many."""

    count: int | None = None
    name: str = "tool sum"

    def draw(self, rng: Random, split: Split) -> Problem:
        count = self.count or rng.randint(2, 4)
        while True:
            words = rng.sample(KEYS, count)
            numbers = [rng.randrange(1, 100) for _ in words]
            if belongs_to(split, *sum_key(numbers)):
                break
        thoughts = [by_effort("", "", "")]
        total = numbers[0]
        for number in numbers[1:]:
            medium, high = f"{total}+{number}={total + number}", plus_lines(total, number)
            thoughts.append(by_effort("", medium, "\n".join(high)))
            total += number
        *before, last = [thoughts[0], *thoughts]
        calls = tuple(
            Call(LOOK_UP, format_call_arguments(word=word), str(number), thought)
            for word, number, thought in zip(words, numbers, before, strict=True)
        )
        listed = ", ".join(words[:-1]) + " and " + words[-1]
        question = rng.choice(WORDINGS).format(listed)
        return Problem(self.name, question, str(total), last, calls=calls)

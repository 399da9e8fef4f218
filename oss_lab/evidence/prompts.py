"""What is asked where nothing else is given: nano's own tasks, or a dozen general questions.

nano's are held-out problems, drawn with a seed that never changes. The general ones are short, and
no model has a reason to refuse one.
"""

from dataclasses import dataclass

from oss_lab.evaluation.builtin import SUITE
from oss_lab.tasks import Problem

SEED = 5
ROWS = (
    "product 3x2 digits",
    "product 2x1 digits",
    "sum 2 terms, 3 digits",
    "difference, 3 digits",
    "sum 4 terms",
    "look-up beyond the window",
    "look-up, 2 hops",
    "list",
    "rule against 5, sum",
    "too long, no calculator",
    "small talk",
    "out of reach",
)
"""One problem of each of these rows of the built-in evaluation."""


@dataclass(frozen=True)
class Asked:
    """One question of a recording; `instructions` are the developer message, None for none."""

    name: str
    question: str
    instructions: str | None = None


def prompts_for(vocabulary: str) -> tuple[Asked, ...]:
    """The fixed prompts for a model of this vocabulary."""
    return nano_prompts() if vocabulary == "nano" else GENERAL


def nano_prompts() -> tuple[Asked, ...]:
    """A held-out problem of each row."""
    return tuple(asked(SUITE[row].problems(row, 1, SEED)[0]) for row in ROWS)


def asked(problem: Problem) -> Asked:
    """The question of a problem without earlier turns and tools."""
    developer = problem.developer
    return Asked(problem.name, problem.question, developer.instructions if developer else None)


GENERAL = (
    Asked("product", "What is 347 * 62?"),
    Asked("sum of digits", "What is the sum of the digits of 2 to the power of 15?"),
    Asked(
        "logic",
        "Anna, Ben and Clara each have one pet: a cat, a dog or a fish. Anna is allergic to fur."
        " Ben's pet does not bark. Who has which pet?",
    ),
    Asked("translation", "Translate into French: The library opens at nine on Sundays."),
    Asked("Chinese", "用一句话解释为什么天空是蓝色的。"),
    Asked("code", "Write a Python function that returns the n-th Fibonacci number."),
    Asked("debugging", "What does `[lambda: i for i in range(3)][0]()` return in Python, and why?"),
    Asked("fact", "Which planet of the solar system has the most mass?"),
    Asked("poem", "Write one line of a poem about rain on a tin roof."),
    Asked("order", "Sort these by length, shortest first: hour, week, second, year, minute."),
    Asked("JSON", "Give the three primary colours of light as a JSON list of strings."),
    Asked("instructions", "Describe a lighthouse in two sentences.", "Write in capitals only."),
)

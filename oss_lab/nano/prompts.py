"""The prompts of a recording of nano: held-out problems, drawn with a fixed seed."""

from oss_lab.nano.suite import SUITE
from oss_lab.nano.tasks import Problem
from oss_lab.record.evidence.bundle import RecordedPrompt

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
"""Rows of the built-in evaluation; a recording asks one problem of each."""


def draw_nano_prompts() -> tuple[RecordedPrompt, ...]:
    """One held-out problem of each row."""
    return tuple(to_recorded_prompt(SUITE[row].draw_problems(row, 1, SEED)[0]) for row in ROWS)


def to_recorded_prompt(problem: Problem) -> RecordedPrompt:
    """The question and instructions of a problem; earlier turns and tools are dropped."""
    developer = problem.developer
    return RecordedPrompt(
        problem.name, problem.question, developer.instructions if developer else None
    )

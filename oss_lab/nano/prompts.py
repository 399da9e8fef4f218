"""What a recording asks nano: held-out problems, drawn with a seed that never changes."""

from oss_lab.nano.suite import SUITE
from oss_lab.nano.tasks import Problem
from oss_lab.record.evidence.bundle import Asked

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


def nano_prompts() -> tuple[Asked, ...]:
    """A held-out problem of each row."""
    return tuple(asked(SUITE[row].problems(row, 1, SEED)[0]) for row in ROWS)


def asked(problem: Problem) -> Asked:
    """The question of a problem without earlier turns and tools."""
    developer = problem.developer
    return Asked(problem.name, problem.question, developer.instructions if developer else None)

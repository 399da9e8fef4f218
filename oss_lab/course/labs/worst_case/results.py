"""Lesson 21's stored result: the curve of a model, and its threshold."""

from collections.abc import Mapping
from typing import Any

from oss_lab.analysis.statistics.shares import wilson
from oss_lab.course.labs.worst_case.attack import STEPS, Counts

LEVEL = 0.5  # share of right answers from which on the capability is back


def select(result: Mapping[str, Any], model: str, **settings: Any) -> list[dict[str, Any]]:
    """The attacks on a model with these settings; by default with all steps and the capability."""
    wanted = {"steps": STEPS, "data": "capability", "model": model} | settings
    return [
        each
        for each in result["attacks"]
        if all(each[name] == value for name, value in wanted.items())
    ]


def read_curve(result: Mapping[str, Any], model: str, seed: int = 0) -> dict[int, Counts]:
    """Counts of the capability by the number of examples, from none on."""
    found = {0: result["before"][model]["capability"]["high"]}
    return found | {
        each["examples"]: each["capability"] for each in select(result, model, seed=seed)
    }


def find_threshold(curve: Mapping[int, Counts], level: float = LEVEL) -> int | None:
    """The smallest number of examples at which Wilson's 95% interval is above the level."""
    reached = [n for n, each in curve.items() if wilson(each["right"], each["n"])[0] >= level]
    return min(reached, default=None)

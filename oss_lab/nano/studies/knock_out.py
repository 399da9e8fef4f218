"""What tasks lose when an expert is taken away: right answers with it and without, by task."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from oss_lab.analysis.statistics.paired import Interval, paired_interval
from oss_lab.analysis.statistics.shares import Paired
from oss_lab.harmony.messages import Effort
from oss_lab.hooks.interventions import AblateExpert, Intervention
from oss_lab.lab import Lab
from oss_lab.nano.studies.problems import marks, replied
from oss_lab.nano.tasks import Problem

EFFORT: Effort = "high"
Problems = dict[str, list[Problem]]
"""By task."""
Marks = dict[str, list[bool]]
"""By task, which problems are right."""


@dataclass(frozen=True)
class Drop:
    """One task with the whole model first and without an expert second; 95 % interval of the
    difference."""

    accuracy: Paired
    interval: Interval

    @classmethod
    def of(cls, whole: Sequence[bool], without: Sequence[bool]) -> "Drop":
        pair = Paired.of(whole, without)
        return cls(pair, paired_interval(pair))


@dataclass(frozen=True)
class Cost:
    """What the knock-out of one expert costs two tasks, as shares of their problems.

    Attributes:
        contrast: how much more the target falls than the spared task.
    """

    layer: int
    expert: int
    target: float
    spared: float
    contrast: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "contrast", self.target - self.spared)


@dataclass(frozen=True)
class Said:
    """What is said to a problem that is lost."""

    question: str
    answer: str
    analysis: str
    final: str


def solved(lab: Lab, problems: Problems) -> Marks:
    """Which problems the model gets right; all tasks in the same batches."""
    right = iter(marks(lab, [p for each in problems.values() for p in each], EFFORT))
    return {name: [next(right) for _ in each] for name, each in problems.items()}


def drops(
    lab: Lab, change: Intervention, problems: Problems, whole: Marks
) -> tuple[dict[str, Drop], float]:
    """What each task loses under a change, and by how much of its norm that changes its point."""
    with lab.intervene(change) as effects:
        after = solved(lab, problems)
    return {name: Drop.of(whole[name], after[name]) for name in problems}, effects.each[0].size


def cost(
    lab: Lab, layer: int, expert: int, problems: Problems, whole: Marks, target: str, spared: str
) -> Cost:
    """What it costs to take an expert's output away."""
    with lab.intervene(AblateExpert(layer=layer, expert=expert)):
        after = solved(lab, problems)
    lost = {name: float(np.mean(whole[name]) - np.mean(after[name])) for name in problems}
    return Cost(layer, expert, lost[target], lost[spared])


def instead(
    lab: Lab, change: Intervention, problems: Sequence[Problem], whole: Sequence[bool]
) -> list[Said]:
    """What is said under a change to the problems that only the whole model gets right; greedy."""
    known = [problem for problem, right in zip(problems, whole, strict=True) if right]
    if not known:
        return []
    with lab.intervene(change):
        replies = replied(lab, known, EFFORT)
    return [
        Said(problem.question, problem.answer, reply.analysis or "", reply.final or "")
        for problem, reply in zip(known, replies, strict=True)
        if not problem.is_right(reply.messages)
    ]

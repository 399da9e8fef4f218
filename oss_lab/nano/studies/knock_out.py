"""How much accuracy each task loses when an expert is ablated."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from oss_lab.analysis.statistics.paired import Interval, paired_interval
from oss_lab.analysis.statistics.shares import Paired
from oss_lab.harmony.messages import Effort
from oss_lab.hooks.interventions import AblateExpert, Intervention
from oss_lab.lab import Lab
from oss_lab.nano.studies.problems import grade_problems, reply_to_problems
from oss_lab.nano.tasks import Problem

EFFORT: Effort = "high"
Problems = dict[str, list[Problem]]
"""By task."""
Marks = dict[str, list[bool]]
"""By task, which problems are right."""


@dataclass(frozen=True)
class Drop:
    """One task, first with the intact model, then without an expert; `interval` is the 95% interval
    of the difference."""

    accuracy: Paired
    interval: Interval

    @classmethod
    def of(cls, whole: Sequence[bool], without: Sequence[bool]) -> "Drop":
        pair = Paired.of(whole, without)
        return cls(pair, paired_interval(pair))


@dataclass(frozen=True)
class AblationCost:
    """The accuracy that two tasks lose when one expert is ablated.

    Attributes:
        contrast: the loss of the target minus that of the spared task.
    """

    layer: int
    expert: int
    target: float
    spared: float
    contrast: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "contrast", self.target - self.spared)


@dataclass(frozen=True)
class LostReply:
    """The reply to a problem that the changed model gets wrong."""

    question: str
    answer: str
    analysis: str
    final: str


def grade_tasks(lab: Lab, problems: Problems) -> Marks:
    """Which problems the model gets right; tasks share batches."""
    right = iter(grade_problems(lab, [p for each in problems.values() for p in each], EFFORT))
    return {name: [next(right) for _ in each] for name, each in problems.items()}


def measure_drops(
    lab: Lab, change: Intervention, problems: Problems, whole: Marks
) -> tuple[dict[str, Drop], float]:
    """Each task's loss under an intervention, and the relative size of the change it makes."""
    with lab.intervene(change) as effects:
        after = grade_tasks(lab, problems)
    return {name: Drop.of(whole[name], after[name]) for name in problems}, effects.each[0].size


def measure_cost(
    lab: Lab, layer: int, expert: int, problems: Problems, whole: Marks, target: str, spared: str
) -> AblationCost:
    """The cost of ablating an expert's output."""
    with lab.intervene(AblateExpert(layer=layer, expert=expert)):
        after = grade_tasks(lab, problems)
    lost = {name: float(np.mean(whole[name]) - np.mean(after[name])) for name in problems}
    return AblationCost(layer, expert, lost[target], lost[spared])


def collect_lost_replies(
    lab: Lab, change: Intervention, problems: Sequence[Problem], whole: Sequence[bool]
) -> list[LostReply]:
    """The wrong greedy replies under an intervention to problems that the intact model solves."""
    known = [problem for problem, right in zip(problems, whole, strict=True) if right]
    if not known:
        return []
    with lab.intervene(change):
        replies = reply_to_problems(lab, known, EFFORT)
    return [
        LostReply(problem.question, problem.answer, reply.analysis or "", reply.final or "")
        for problem, reply in zip(known, replies, strict=True)
        if not problem.is_right(reply.messages)
    ]

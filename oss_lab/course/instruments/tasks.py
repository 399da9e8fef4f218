"""How many held-out problems of a task a lab solves."""

from dataclasses import dataclass

from oss_lab.analysis.statistics.shares import Share
from oss_lab.course.instruments.texts import MAX_TOKENS
from oss_lab.errors import LabError, explain_unknown
from oss_lab.evaluation.run import answer_questions
from oss_lab.lab.workbench import Lab
from oss_lab.nano.suite import STRESS, SUITE


@dataclass(frozen=True, repr=False)
class Accuracy:
    """Which problems of a task a lab solved, in the order in which they were drawn."""

    task: str
    marks: tuple[bool, ...]

    @property
    def share(self) -> Share:
        return Share.of(self.marks)

    def __repr__(self) -> str:
        share = self.share
        assert share.interval is not None  # there is at least one problem
        low, high = share.interval
        counted = f"{share.count} of {share.n} right"
        return f"{self.task}: {counted}, 95% interval {low:.0%} to {high:.0%}"


def accuracy(
    lab: Lab, task: str = "product 3x2 digits", n: int = 50, *, seed: int = 0, batch: int = 100
) -> Accuracy:
    """Ask held-out problems of one of nano's tasks at high effort.

    Args:
        task: a row of `oss_lab.nano.suite.SUITE` or `STRESS`.
        n: number of problems; a task may have fewer.

    Raises:
        LabError: there is no such task.
    """
    rows = SUITE | STRESS
    if task not in rows:
        raise LabError(explain_unknown("task", task, rows))
    problems = rows[task].draw_problems(task, n, seed)
    outcomes = answer_questions(
        lab, problems, "high", batch=batch, max_tokens=MAX_TOKENS, seed=seed
    )
    right = {each.index: each.right for each in outcomes}
    return Accuracy(task, tuple(right[n] for n in sorted(right)))

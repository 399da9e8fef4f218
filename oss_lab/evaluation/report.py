"""Summarize the outcomes of an evaluation as scores, a table and JSON.

Intervals are 95% Wilson intervals over questions. They show how much a score may vary with another
sample of questions, not with another checkpoint.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from rich.table import Table
from rich.text import Text

from oss_lab.analysis.statistics.shares import wilson
from oss_lab.checkpoint.fields import make_printable
from oss_lab.evaluation.question import Question
from oss_lab.evaluation.run import Outcome, answer_questions
from oss_lab.harmony.events import DiagnosticKind as Kind
from oss_lab.harmony.messages import EFFORTS, Effort
from oss_lab.lab import Lab
from oss_lab.lab.options import MAX_TOKENS

ALL = "all questions"
CUT = {Kind.UNFINISHED_HEADER, Kind.UNFINISHED_MESSAGE, Kind.UNFINISHED_TURN}


@dataclass(frozen=True)
class Score:
    """The score of all questions with one name at one effort.

    Attributes:
        accuracy: the share of right answers, from 0 to 1.
        interval: the 95% interval of the accuracy.
        mean_analysis_tokens: tokens generated on the analysis channel, per question.
        cut_off: replies truncated by max_tokens or the context; they count as wrong.
        calls_unanswered: replies that ended in a tool call without an output; they have no answer.
        malformed: questions with a diagnostic other than those of a truncated reply.
        diagnostics: how often each kind of diagnostic was reported.
    """

    name: str
    effort: Effort
    n: int
    accuracy: float
    interval: tuple[float, float]
    mean_analysis_tokens: float
    cut_off: int = 0
    calls_unanswered: int = 0
    malformed: int = 0
    diagnostics: Mapping[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Every field except the name and the effort, rounded."""
        low, high = self.interval
        return {
            "accuracy": round(self.accuracy, 4),
            "interval": [round(low, 4), round(high, 4)],
            "mean_analysis_tokens": round(self.mean_analysis_tokens, 1),
            "n": self.n,
            "cut_off": self.cut_off,
            "calls_unanswered": self.calls_unanswered,
            "malformed": self.malformed,
            "diagnostics": dict(self.diagnostics),
        }


def build_score(name: str, outcomes: Sequence[Outcome]) -> Score:
    """One score for the outcomes of one effort; there must be at least one."""
    n, right = len(outcomes), sum(each.right for each in outcomes)
    reported = Counter[str]()
    for each in outcomes:
        reported.update(each.diagnostics)
    return Score(
        name,
        outcomes[0].effort,
        n,
        right / n,
        wilson(right, n),
        sum(each.analysis_tokens for each in outcomes) / n,
        sum(each.stop == "length" for each in outcomes),
        sum(each.stop == "call" for each in outcomes),
        sum(bool(each.diagnostics.keys() - CUT) for each in outcomes),
        dict(sorted(reported.items())),
    )


def build_scores(outcomes: Iterable[Outcome]) -> list[Score]:
    """A score for each name and effort: names in the order asked, efforts from low to high."""
    outcomes = sorted(outcomes, key=lambda each: each.index)
    order = {name: place for place, name in enumerate(dict.fromkeys(o.name for o in outcomes))}

    def key(each: Outcome) -> tuple[int, int]:
        return order[each.name], EFFORTS.index(each.effort)

    groups = groupby(sorted(outcomes, key=key), key=key)
    return [build_score(part[0].name, part) for part in (list(group) for _, group in groups)]


def evaluate(
    lab: Lab, questions: Sequence[Question], effort: Effort, *, batch: int = 64, seed: int = 0
) -> list[Score]:
    """Ask at one effort and return a score for each name. Nothing is saved to disk."""
    return build_scores(
        answer_questions(lab, questions, effort, batch=batch, max_tokens=MAX_TOKENS, seed=seed)
    )


def build_overall_scores(outcomes: Iterable[Outcome]) -> list[Score]:
    """One score over all questions for each effort, from low to high."""
    outcomes = list(outcomes)
    parts = ([each for each in outcomes if each.effort == effort] for effort in EFFORTS)
    return [build_score(ALL, part) for part in parts if part]


def build_score_table(scores: Sequence[Score]) -> Table:
    """One row per score; truncated replies and unanswered calls have a column if there are any.

    A caption counts malformed replies, if there are any.
    """
    cut, unanswered = any(s.cut_off for s in scores), any(s.calls_unanswered for s in scores)
    malformed = sum(s.malformed for s in scores if s.name != ALL)
    shown = Table(caption=f"replies with format errors: {malformed:,}" if malformed else None)
    for column in ("questions", "effort"):
        shown.add_column(column)
    numbers = ["n", "accuracy", "95 % interval", "analysis\ntokens"]
    for column in [*numbers, *["cut\noff"] * cut, *["unanswered\ncalls"] * unanswered]:
        shown.add_column(column, justify="right")
    for each in scores:
        low, high = each.interval
        shown.add_row(
            Text(make_printable(each.name)),
            each.effort,
            f"{each.n:,}",
            f"{each.accuracy:.1%}",
            f"{low:.1%} – {high:.1%}",
            f"{each.mean_analysis_tokens:,.0f}",
            *[f"{each.cut_off:,}"] * cut,
            *[f"{each.calls_unanswered:,}"] * unanswered,
        )
    return shown


def as_json(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """One object per effort: its score over all questions, and `tasks`, the scores by name."""
    rows = build_scores(outcomes)
    return [
        {
            "effort": total.effort,
            **total.as_json(),
            "tasks": [
                {"name": row.name, **row.as_json()} for row in rows if row.effort == total.effort
            ],
        }
        for total in build_overall_scores(outcomes)
    ]

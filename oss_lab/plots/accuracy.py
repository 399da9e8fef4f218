"""Accuracy against the length of the analysis: one point per effort, one line per row name."""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from oss_lab.checkpoint.fields import make_printable
from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import LINES, base, legend_below, plural
from oss_lab.plots.tokens import plotly_text

if TYPE_CHECKING:
    from oss_lab.evaluation.report import Score

MOST_LINES = 8
SYMBOLS = {"low": "circle-open", "medium": "square-open", "high": "diamond"}
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


@check_arguments
def accuracy(rows: Sequence["Score"], totals: Sequence["Score"], model: str) -> Figure:
    """Accuracy in percent, with its interval, against mean analysis tokens.

    With more than MOST_LINES names only the totals are drawn, because overlapping error bars are
    unreadable.
    """
    if not totals:
        raise LabError("there are no scores to draw; evaluate at least one question")
    names = {row.name for row in rows}
    drawn = rows if 1 <= len(names) <= MOST_LINES else totals
    figure = go.Figure()
    for n, (name, group) in enumerate(groupby(drawn, key=lambda each: each.name)):
        add_line(figure, name, list(group), n)
    questions = plural(totals[0].n, "question")
    subtitle = (
        f"{plotly_text(make_printable(model))}, {questions} at each effort; bars: 95 % interval"
    )
    base(figure, "Accuracy against analysis tokens, by effort", subtitle, 480)
    legend_below(figure)
    most = max(each.mean_analysis_tokens for each in drawn) or 1
    room = [-0.04 * most, 1.12 * most]  # for the leftmost markers and the rightmost labels
    figure.update_xaxes(title="analysis tokens per question (mean)", range=room)
    figure.update_yaxes(title_text="accuracy, %", range=[-2, 104])
    parts = [
        f"{each.accuracy:.1%} ({each.interval[0]:.1%} to {each.interval[1]:.1%}) at {each.effort}"
        f" effort, with {each.mean_analysis_tokens:,.0f} analysis tokens per question"
        for each in totals
    ]
    return Figure(figure, f"Over {questions}, accuracy is {'; '.join(parts)}.")


def add_line(figure: go.Figure, name: str, scores: Sequence["Score"], n: int) -> None:
    """One line with the efforts of one name. Lines differ in color, dash and point labels."""
    accuracies = [100 * each.accuracy for each in scores]
    figure.add_scatter(
        x=[each.mean_analysis_tokens for each in scores],
        y=accuracies,
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [
                100 * each.interval[1] - a for each, a in zip(scores, accuracies, strict=True)
            ],
            "arrayminus": [
                a - 100 * each.interval[0] for each, a in zip(scores, accuracies, strict=True)
            ],
            "thickness": 1,
            "width": 4,
        },
        mode="lines+markers+text",
        name=plotly_text(make_printable(name)),
        text=[each.effort for each in scores],
        textposition="bottom right",
        cliponaxis=False,
        line={"color": LINES[n % len(LINES)], "dash": DASHES[n % 6]},
        marker={"symbol": [SYMBOLS[each.effort] for each in scores], "size": 9},
        hovertemplate="%{text} effort: %{y:.1f} % right, %{x:.0f} analysis tokens"
        "<extra>%{fullData.name}</extra>",
    )

"""The commitment curve: how likely the answer is already, had the thinking ended here.

A point a step of the chain of thought. A full marker is a step whose forced answer is the one
that the reply came to; what it answers stands beside it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from oss_lab.errors import LabError
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import BLUE, GRAY, base, plural
from oss_lab.plots.tokens import plotly_text, visible

if TYPE_CHECKING:
    from oss_lab.analysis.commitment import Step

LONGEST = 8  # characters of an answer beside its point


def commitment_curve(steps: "Sequence[Step]") -> Figure:
    """Probability of the reply's own answer over the tokens of analysis that stand before it."""
    if len(steps) < 2:
        raise LabError("a curve needs two steps; this reply has no chain of thought")
    answer = steps[-1].answer
    same = [step.answer == answer for step in steps]
    likely = np.exp([step.logprob for step in steps])
    figure = go.Figure(
        go.Scatter(
            x=[step.kept for step in steps],
            y=np.rint(100 * likely).astype(np.uint8),
            mode="lines+markers+text",
            line={"color": BLUE, "dash": "dot"},
            marker={
                "size": 10,
                "symbol": ["circle" if each else "circle-open" for each in same],
                "color": BLUE,
            },
            text=[plotly_text(visible(step.answer[:LONGEST])) for step in steps],
            textposition="top center",
            textfont={"color": GRAY, "size": 10},
            cliponaxis=False,
            customdata=[plotly_text(visible(step.thought[-LONGEST * 3 :])) for step in steps],
            hovertemplate="after %{x} tokens (…%{customdata}): %{y} %<extra>%{text}</extra>",
        )
    )
    subtitle = "full: the forced answer is the reply's own"
    base(figure, "What would the answer be, had the thinking ended here?", subtitle, 360)
    figure.update_xaxes(title="tokens of the reply kept", rangemode="tozero")
    figure.update_yaxes(title="probability of the reply's answer, %", range=[-5, 110])
    wrong = [n for n, each in enumerate(same) if not each]
    fixed = wrong[-1] + 1 if wrong else 0
    return Figure(
        figure,
        f"Forced after each of {plural(len(steps), 'step')}, the answer is the reply's own"
        f" ({visible(answer)}) from step {fixed + 1} on, after {steps[fixed].kept} of"
        f" {steps[-1].kept} tokens; it has a probability of {likely[0]:.0%} before the thinking and"
        f" {likely[-1]:.0%} behind it.",
    )

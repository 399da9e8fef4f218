"""The commitment curve: how likely the reply's answer is if the thinking ends early.

One point per step of the chain of thought. A filled marker is a step whose forced answer equals the
reply's answer. The forced answer is written next to its marker.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from oss_lab.errors import LabError, shorten
from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import BLUE, GRAY, base, plural, to_percent
from oss_lab.plots.tokens import make_visible, plotly_text

if TYPE_CHECKING:
    from oss_lab.analysis.commitment import CommitmentStep

LONGEST = 8  # characters of an answer next to its marker


@check_arguments
def commitment_curve(steps: "Sequence[CommitmentStep]") -> Figure:
    """Probability of the reply's answer, against the number of tokens kept before it."""
    if len(steps) < 2:
        raise LabError("a curve needs two steps: this reply has no chain of thought")
    answer = steps[-1].answer
    same = [step.answer == answer for step in steps]
    probability = np.exp([step.logprob for step in steps])
    figure = go.Figure(
        go.Scatter(
            x=[step.kept for step in steps],
            y=to_percent(probability),
            mode="lines+markers+text",
            line={"color": BLUE, "dash": "dot"},
            marker={
                "size": 10,
                "symbol": ["circle" if each else "circle-open" for each in same],
                "color": BLUE,
            },
            text=[plotly_text(make_visible(shorten(step.answer, LONGEST))) for step in steps],
            textposition="top center",
            textfont={"color": GRAY, "size": 10},
            cliponaxis=False,
            customdata=[plotly_text(make_visible(step.thought[-LONGEST * 3 :])) for step in steps],
            hovertemplate="after %{x} tokens (…%{customdata}): %{y} %<extra>%{text}</extra>",
        )
    )
    subtitle = "filled marker: the forced answer equals the reply's answer"
    base(figure, "What would the answer be if the thinking ended here?", subtitle, 360)
    figure.update_xaxes(title="tokens of the reply kept", rangemode="tozero")
    figure.update_yaxes(title="probability of the reply's answer, %", range=[-5, 110])
    wrong = [n for n, each in enumerate(same) if not each]
    fixed = wrong[-1] + 1 if wrong else 0
    return Figure(
        figure,
        f"If an answer is forced after each of {plural(len(steps), 'step')}, it equals the reply's"
        f" answer ({make_visible(answer)}) from step {fixed + 1} on, after {steps[fixed].kept} of"
        f" {steps[-1].kept} tokens; the probability of that answer is {probability[0]:.0%} before"
        f" the thinking and {probability[-1]:.0%} after it.",
    )

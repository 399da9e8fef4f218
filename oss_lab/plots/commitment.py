"""The commitment curve: how likely the reply's answer is if the thinking ends early.

One point per step of the chain of thought. A filled marker is a step whose forced answer equals the
reply's answer. The forced answer is written above the plot, over its marker.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from oss_lab.errors import LabError, shorten
from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import INDIGO, PLOT_WIDTH, base, plural, to_percent
from oss_lab.plots.tokens import make_visible, plotly_text

if TYPE_CHECKING:
    from oss_lab.analysis.commitment import CommitmentStep

LONGEST = 8  # characters of an answer
LABEL = 14  # pixels across an answer, which is written upright


@check_arguments
def commitment_curve(steps: "Sequence[CommitmentStep]") -> Figure:
    """Probability of the reply's answer, against the number of tokens kept before it."""
    if len(steps) < 2:
        raise LabError("a curve needs two steps: this reply has no chain of thought")
    answer, kept = steps[-1].answer, [step.kept for step in steps]
    same = [step.answer == answer for step in steps]
    texts = [make_visible(shorten(step.answer, LONGEST)) for step in steps]
    probability = np.exp([step.logprob for step in steps])
    figure = go.Figure(
        go.Scatter(
            x=kept,
            y=to_percent(probability),
            mode="lines+markers",
            line={"color": INDIGO, "dash": "dot"},
            marker={
                "size": 10,
                "symbol": ["circle" if each else "circle-open" for each in same],
                "color": INDIGO,
            },
            text=[plotly_text(text) for text in texts],
            cliponaxis=False,
            customdata=[plotly_text(make_visible(step.thought[-LONGEST * 3 :])) for step in steps],
            hovertemplate="after %{x} tokens (…%{customdata}): %{y} %<extra>%{text}</extra>",
        )
    )
    subtitle = (
        "top: the forced answer; filled marker: it equals the reply's answer (others: open marker)"
    )
    base(
        figure,
        "What would the answer be if the thinking ended here?",
        subtitle,
        330,
        above=8 * max(map(len, texts)),
    )
    room = 0.03 * max(1, kept[-1])  # keeps the first and the last marker off the plot's edges
    add_answers(figure, kept, PLOT_WIDTH / (kept[-1] + 2 * room))
    figure.update_xaxes(title="tokens of the reply kept", range=[-room, kept[-1] + room])
    figure.update_yaxes(title_text="probability of the reply's answer, %", range=[-5, 105])
    wrong = [n for n, each in enumerate(same) if not each]
    fixed = wrong[-1] + 1 if wrong else 0
    return Figure(
        figure,
        f"If an answer is forced after each of {plural(len(steps), 'step')}, it equals the reply's"
        f" answer ({make_visible(answer)}) from step {fixed + 1} on, after {steps[fixed].kept} of"
        f" {steps[-1].kept} tokens; the probability of that answer is {probability[0]:.0%} before"
        f" the thinking and {probability[-1]:.0%} after it.",
    )


def add_answers(figure: go.Figure, kept: Sequence[int], pixels: float) -> None:
    """Write the answers above the plot, upright, without those that have no room.

    The last answers have priority: the reply's own is among them.

    Args:
        pixels: for each token.
    """
    texts, left = figure.data[0]["text"], float("inf")
    for place, text in reversed(list(zip(kept, texts, strict=True))):
        if (left - place) * pixels < LABEL:
            continue
        left = place
        figure.add_annotation(
            text=text,
            x=place,
            y=1,
            yref="paper",
            yanchor="bottom",
            textangle=-90,
            showarrow=False,
            font={"size": 11},
        )

"""The most likely next tokens, under one or more ways to choose among them.

One bar per token and way. A token without a bar is never chosen that way.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
import tiktoken

from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import LINES, base, legend_below, plural, to_array, to_percent
from oss_lab.plots.tokens import make_visible, plotly_text
from oss_lab.record.token_labels import token_text

PATTERNS = ("", "/", ".", "x", "-", "|")


@check_arguments
def next_token(ways: Mapping[str, Any], encoding: tiktoken.Encoding, *, most: int = 12) -> Figure:
    """Bars of the probability of each token, in percent.

    Args:
        ways: the probability of every id [vocab], by the name of the way.
        most: how many tokens to draw: those that are most likely in the first way.

    Raises:
        LabError: there are no ways, or their probabilities do not sum to 1.
    """
    if not ways:
        raise LabError("there are no probabilities to draw; give at least one way")
    shares = {name: to_array(each, "vocab") for name, each in ways.items()}
    for name, share in shares.items():
        if abs(share.sum() - 1) > 1e-3 or share.min() < 0:
            raise LabError(f"the probabilities of {name!r} sum to {share.sum():.3g}; expected 1")
    order = np.argsort(-next(iter(shares.values())), kind="stable")[:most]
    texts = [make_visible(token_text(encoding, int(id))) for id in order]
    tokens = [
        t if texts.count(t) == 1 else f"{t} ({id})" for t, id in zip(texts, order, strict=True)
    ]
    figure = go.Figure()
    for n, (name, share) in enumerate(shares.items()):
        figure.add_bar(
            x=[plotly_text(token) for token in tokens],
            y=to_percent(share[order]),
            name=plotly_text(name),
            marker={
                "color": LINES[n % len(LINES)],
                "pattern": {"shape": PATTERNS[n % len(PATTERNS)]},
            },
            hovertemplate="%{x}: %{y} %<extra>%{fullData.name}</extra>",
        )
    base(figure, "Which token comes next?", "probability of the most likely tokens", 340)
    legend_below(figure)
    figure.update_xaxes(title="token", type="category", showgrid=False)
    figure.update_yaxes(title_text="probability, %", rangemode="tozero")
    parts = [
        f"{name}: {share[order[0]]:.0%}, {plural(int((share > 0).sum()), 'token')} possible"
        for name, share in shares.items()
    ]
    return Figure(figure, f"The most likely next token is “{tokens[0]}”. {'; '.join(parts)}.")

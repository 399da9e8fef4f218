"""The weights of one query in one head: a bar for each visible token, and one for the sink."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import (
    GRAY,
    INDIGO,
    MONOSPACE,
    RED,
    base,
    legend_below,
    plural,
    require_finite,
    require_tokens,
    to_array,
)
from oss_lab.plots.tokens import make_visible, plotly_text
from oss_lab.record.token_labels import TokenLabel

MOST = 40  # bars of tokens; earlier tokens are left out


@check_arguments
def attention_row(weights: Any, sink: float, tokens: Sequence[TokenLabel]) -> Figure:
    """One query's attention; the query is the last token.

    Args:
        weights: [key], the share of every token.
        sink: the share of the sink.
        tokens: [key] labels.

    Raises:
        LabError: there are no tokens, or a share is no number.
    """
    shares = to_array(weights, "key")
    require_tokens(len(shares), tokens)
    require_finite(shares)
    places = np.arange(max(0, len(shares) - MOST), len(shares))
    names = [plotly_text(make_visible(token.text)) for token in tokens]
    figure = go.Figure()
    for name, x, y, color, pattern in (
        ("sink", places[:1] - 2, [sink], RED, "/"),
        ("tokens", places, shares[places], INDIGO, ""),
    ):
        figure.add_bar(
            x=x,
            y=(100 * np.asarray(y)).astype(np.float32),
            name=name,
            marker={
                "color": color,
                "pattern": {"shape": pattern, "fgcolor": GRAY, "fillmode": "overlay"},
            },
            hovertemplate="%{x}: %{y:.1f} %<extra>" + name + "</extra>",
        )
    base(figure, "Where one query looks", "shares of its attention; the query is on the right", 320)
    legend_below(figure)
    figure.update_xaxes(
        tickvals=[places[0] - 2, *places],
        ticktext=["<b>sink</b>", *(names[n] for n in places)],
        tickfont={"family": MONOSPACE, "size": 11},
        tickangle=-90,
        showgrid=False,
    )
    figure.update_yaxes(title_text="share, %", range=[0, 105])
    best = int(shares.argmax())
    back = plural(len(shares) - 1 - best, "position")
    return Figure(
        figure,
        f"“{make_visible(tokens[-1].text)}” gives {shares[best]:.0%} of its attention to"
        f" “{make_visible(tokens[best].text)}”, {back} back, and {sink:.0%} to the sink; all tokens"
        f" together get {shares.sum():.0%}.",
    )

"""The logit lens as a map: what each layer would write, were it the last.

A column is a position, named by the token that came next. The text of a cell is the token that
the layer finds likeliest there, its color how likely it finds the token that came next.
"""

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
import tiktoken

from oss_lab.plots.figure import Figure
from oss_lab.plots.style import MONOSPACE, SCALE, base, numbers, percent, plural
from oss_lab.plots.tokens import plotly_text, visible
from oss_lab.record.token_labels import token_text

if TYPE_CHECKING:
    from oss_lab.analysis.lens import Lens

ROW = 34  # pixels
FITS = 3  # characters of a token in a cell; the whole of it stands where the mouse points


def logit_lens(found: "Lens", encoding: tiktoken.Encoding) -> Figure:
    """Layer x position map of the target's probability, with each layer's likeliest token."""
    likely = np.exp(numbers(found.logprob))
    best = numbers(found.top_ids)[:, :, 0].astype(int)
    layers, seq = likely.shape
    texts = [[visible(token_text(encoding, id)) for id in layer] for layer in best]
    followed = [plotly_text(visible(token_text(encoding, id))) for id in found.targets]
    places = list(range(seq))
    figure = go.Figure(
        go.Heatmap(
            z=percent(likely),
            text=[[plotly_text(cut(text)) for text in layer] for layer in texts],
            customdata=[[plotly_text(text) for text in layer] for layer in texts],
            texttemplate="%{text}",
            textfont={"family": MONOSPACE, "size": 10},
            colorscale=SCALE,
            zmin=0,
            zmax=100,
            xgap=1,
            ygap=1,
            colorbar={"title": {"text": "probability, %", "side": "right"}, "thickness": 12},
            hovertemplate="%{y}: %{customdata}, what came next %{z} %<extra></extra>",
        )
    )
    subtitle = "text: a layer's likeliest token; color: what it gives to the one that came next"
    title = "What each layer would write, were it the last"
    base(figure, title, subtitle, 190 + ROW * layers)
    figure.update_xaxes(
        title="token that came next",
        tickmode="array",
        tickvals=places,
        ticktext=followed,
        tickfont={"family": MONOSPACE, "size": 10},
        tickangle=0 if max(map(len, followed)) <= 2 else -90,
        showgrid=False,
    )
    figure.update_yaxes(
        tickmode="array",
        tickvals=list(range(layers)),
        ticktext=[f"layer {layer}" for layer in range(layers)],
        autorange="reversed",
        showgrid=False,
    )
    right = (numbers(found.rank) == 0).mean(axis=1)
    shares = ", ".join(f"{share:.0%}" for share in right)
    return Figure(
        figure,
        f"Of {plural(seq, 'token')}, the layers would have written {shares}, from the first to the"
        f" last; their mean probability for what came next goes from {likely[0].mean():.0%} to"
        f" {likely[-1].mean():.0%}.",
    )


def cut(text: str) -> str:
    """What fits into a cell."""
    return text if len(text) <= FITS else f"{text[: FITS - 1]}…"

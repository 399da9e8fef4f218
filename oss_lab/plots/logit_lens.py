"""The logit lens as a map: what each layer would predict if it were the last.

A column is a position, named by the token that actually came next. The text of a cell is the
layer's most likely token. Its color is the layer's probability of the token that came next.
"""

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
import tiktoken

from oss_lab.errors import shorten
from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import MONOSPACE, SCALE, base, plural, to_array, to_percent
from oss_lab.plots.tokens import make_visible, plotly_text
from oss_lab.record.token_labels import token_text

if TYPE_CHECKING:
    from oss_lab.analysis.lens import Lens

ROW = 34  # pixels
FITS = 3  # characters of a token in a cell; the hover text has all of them


@check_arguments
def logit_lens(found: "Lens", encoding: tiktoken.Encoding) -> Figure:
    """Layer x position map of the target's probability, with each layer's most likely token."""
    probability = np.exp(to_array(found.logprob))
    best = to_array(found.top_ids)[:, :, 0].astype(int)
    layers, seq = probability.shape
    texts = [[make_visible(token_text(encoding, id)) for id in layer] for layer in best]
    actual = [plotly_text(make_visible(token_text(encoding, id))) for id in found.targets]
    places = list(range(seq))
    figure = go.Figure(
        go.Heatmap(
            z=to_percent(probability),
            text=[[plotly_text(shorten(text, FITS)) for text in layer] for layer in texts],
            customdata=[[plotly_text(text) for text in layer] for layer in texts],
            texttemplate="%{text}",
            textfont={"family": MONOSPACE, "size": 10},
            colorscale=SCALE,
            zmin=0,
            zmax=100,
            xgap=1,
            ygap=1,
            colorbar={"title": {"text": "probability, %", "side": "right"}, "thickness": 12},
            hovertemplate="%{y}: %{customdata}; actual next token %{z} %<extra></extra>",
        )
    )
    subtitle = (
        "text: the layer's most likely token; color: its probability of the actual next token"
    )
    title = "What each layer would predict if it were the last"
    base(figure, title, subtitle, 190 + ROW * layers)
    figure.update_xaxes(
        title="actual next token",
        tickmode="array",
        tickvals=places,
        ticktext=actual,
        tickfont={"family": MONOSPACE, "size": 10},
        tickangle=0 if max(map(len, actual)) <= 2 else -90,
        showgrid=False,
    )
    figure.update_yaxes(
        tickmode="array",
        tickvals=list(range(layers)),
        ticktext=[f"layer {layer}" for layer in range(layers)],
        autorange="reversed",
        showgrid=False,
    )
    right = (to_array(found.rank) == 0).mean(axis=1)
    shares = ", ".join(f"{share:.0%}" for share in right)
    return Figure(
        figure,
        f"From the first layer to the last, the most likely token is the actual next token at"
        f" {shares} of {plural(seq, 'position')}; the mean probability of the actual next token"
        f" goes from {probability[0].mean():.0%} to {probability[-1].mean():.0%}.",
    )

"""The logit lens as a map: what each layer would predict if it were the last.

Positions are named by the token that actually came next. The text of a cell is the layer's most
likely token. Its color is the layer's probability of the token that came next. The longer axis,
usually the positions, runs down the page, so that the cells are wide enough for their tokens.
"""

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
import tiktoken

from oss_lab.errors import shorten
from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.cells import LETTER, SMALLEST, add_cells
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import MONOSPACE, PLOT_WIDTH, SCALE, base, plural, to_array, to_percent
from oss_lab.plots.tokens import make_visible, plotly_text
from oss_lab.record.token_labels import token_text

if TYPE_CHECKING:
    from oss_lab.analysis.lens import Lens

ROW = 22  # pixels


@check_arguments
def logit_lens(found: "Lens", encoding: tiktoken.Encoding) -> Figure:
    """Layer x position map of the target's probability, with each layer's most likely token."""
    probability = np.exp(to_array(found.logprob))
    best = to_array(found.top_ids)[:, :, 0].astype(int)
    layers, seq = probability.shape
    actual = [plotly_text(make_visible(token_text(encoding, id))) for id in found.targets]
    names = [f"layer {layer}" for layer in range(layers)]
    turned = seq > layers
    down, across = (actual, names) if turned else (names, actual)
    shares, ids = (probability.T, best.T) if turned else (probability, best)
    texts = [[make_visible(token_text(encoding, id)) for id in row] for row in ids]
    heat = go.Heatmap(
        z=to_percent(shares),
        customdata=[[plotly_text(text) for text in row] for row in texts],
        colorscale=SCALE,
        zmin=0,
        zmax=100,
        xgap=1,
        ygap=1,
        colorbar={"title": {"text": "probability, %", "side": "right"}, "thickness": 12},
        hovertemplate="%{x}, %{y}: %{customdata}; actual next token %{z} %<extra></extra>",
    )
    fits = max(1, int((PLOT_WIDTH / len(across) - 1) / (LETTER * SMALLEST)))
    shown = [[plotly_text(shorten_token(text, fits)) for text in row] for row in texts]
    figure = go.Figure()
    add_cells(figure, heat, np.array(shown, dtype=object), family=MONOSPACE)
    subtitle = (
        "text: the layer's most likely token; color: its probability of the actual next token"
    )
    title = "What each layer would predict if it were the last"
    base(figure, title, subtitle, 150 + ROW * len(down))
    for update, labels in ((figure.update_xaxes, across), (figure.update_yaxes, down)):
        tokens = labels is actual
        update(
            title_text="actual next token" if tokens else "",
            tickmode="array",
            tickvals=list(range(len(labels))),
            ticktext=labels,
            tickfont={"family": MONOSPACE, "size": 11} if tokens else {},
            showgrid=False,
        )
    if across is actual:
        figure.update_xaxes(tickangle=0 if max(map(len, actual)) <= 2 else -90)
    right = (to_array(found.rank) == 0).mean(axis=1)
    shares = ", ".join(f"{share:.0%}" for share in right)
    return Figure(
        figure,
        f"From the first layer to the last, the most likely token is the actual next token at"
        f" {shares} of {plural(seq, 'position')}; the mean probability of the actual next token"
        f" goes from {probability[0].mean():.0%} to {probability[-1].mean():.0%}.",
    )


def shorten_token(text: str, longest: int) -> str:
    """The token in a cell. A special token loses its brackets before it is cut."""
    if len(text) > longest:
        text = text.removeprefix("<|").removesuffix("|>")
    return shorten(text, longest)

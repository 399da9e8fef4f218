"""How much attention the sinks take: the share that goes to no token, head by head.

Averages over the given positions. A sink is one learned number per head.
"""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from oss_lab.config import ModelConfig
from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.cells import UNREADABLE, add_cells
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import SCALE, base, plural, require_tokens, to_array, to_percent

ROW = 30  # pixels


@check_arguments
def sink_mass(mass: Any, config: ModelConfig) -> Figure:
    """Layer x head map of the mean of `mass` [layer head seq], traced at `attn.sink_mass`."""
    shares = to_array(mass, "layer", "head", "seq")
    require_tokens(shares.shape[-1])
    mean = shares.mean(axis=-1)
    layers, heads = mean.shape
    kinds = ["full" if config.window(n) is None else "sliding" for n in range(layers)]
    percent = to_percent(mean)
    heat = go.Heatmap(
        z=percent,
        colorscale=SCALE,
        zmin=0,
        zmax=int(percent.max()) or 1,
        xgap=2,
        ygap=2,
        colorbar={"title": {"text": "mean share, %", "side": "right"}, "thickness": 12},
        hovertemplate="layer %{y}, head %{x}: %{z} %<extra></extra>",
    )
    figure = go.Figure()
    readable = add_cells(figure, heat, percent)
    averaged = f"mean over {plural(shares.shape[-1], 'token')}"
    if not readable:
        averaged += UNREADABLE
    base(figure, "How much attention the sinks take", averaged, 150 + ROW * layers)
    figure.update_xaxes(title="head", dtick=1 if heads <= 16 else 8, showgrid=False)
    figure.update_yaxes(
        title_text="layer",
        tickmode="array",
        tickvals=list(range(layers)),
        ticktext=[f"{n}, {kind}" for n, kind in enumerate(kinds)],
        showgrid=False,
    )
    if mean.min() == mean.max():
        return Figure(figure, f"Every sink takes {mean.max():.0%} of the attention on average.")
    layer, head = np.unravel_index(int(mean.argmax()), mean.shape)
    return Figure(
        figure,
        f"The sinks take {mean.mean():.0%} of all attention on average: at most"
        f" {mean[layer, head]:.0%} (layer {layer}, head {head}) and at least {mean.min():.0%}.",
    )

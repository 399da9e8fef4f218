"""How far fine-tuning moved each expert: one row per layer, one column per expert."""

from typing import Any

import numpy as np
import plotly.graph_objects as go

from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.cells import UNREADABLE, add_cells
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import SCALE, base, require_finite, to_array, to_percent

ROW = 26  # pixels


@check_arguments
def expert_change(change: Any) -> Figure:
    """Layer x expert map; `change` [layer expert] is the size of the change of its matrices over
    the size of the frozen ones.
    """
    values = to_array(change, "layer", "expert")
    require_finite(values)
    percent = to_percent(values)
    heat = go.Heatmap(
        z=percent,
        colorscale=SCALE,
        zmin=0,
        zmax=int(percent.max()) or 1,
        xgap=1,
        ygap=2,
        colorbar={"title": {"text": "change, %", "side": "right"}, "thickness": 12},
        hovertemplate="layer %{y}, expert %{x}: %{z} %<extra></extra>",
    )
    figure = go.Figure()
    readable = add_cells(figure, heat, percent)
    unit = "size of the change over the size of the frozen matrices, in percent"
    height = 150 + ROW * len(values)
    base(figure, "How far each expert moved", unit if readable else unit + UNREADABLE, height)
    figure.update_xaxes(title="expert", dtick=1 if values.shape[1] <= 32 else 8, showgrid=False)
    figure.update_yaxes(title_text="layer", dtick=1, showgrid=False)
    layer, expert = np.unravel_index(int(values.argmax()), values.shape)
    middle = float(np.median(values))
    return Figure(
        figure,
        f"Expert {expert} of layer {layer} moved furthest, by {values.max():.0%} of its size; half"
        f" of the {values.size} experts moved by more than {middle:.0%}.",
    )

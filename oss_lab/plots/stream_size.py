"""The size of the residual stream from layer to layer, before and after the norm."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go

from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import LINES, base, legend_below, to_array
from oss_lab.plots.tokens import plotly_text

SYMBOLS = ("circle", "diamond", "square", "x")


@check_arguments
def stream_size(values: Mapping[str, Any]) -> Figure:
    """The root mean square of vectors, layer by layer: the mean over tokens, and its range.

    Args:
        values: by name, each [layer seq hidden].

    Raises:
        LabError: there are no values, or too many.
    """
    if not 1 <= len(values) <= len(SYMBOLS):
        raise LabError(f"give 1 to {len(SYMBOLS)} sets of vectors, each [layer seq hidden]")
    figure, parts = go.Figure(), []
    for n, (name, vectors) in enumerate(values.items()):
        size = np.sqrt((to_array(vectors, "layer", "seq", "hidden") ** 2).mean(axis=-1))
        mean, low, high = size.mean(axis=1), size.min(axis=1), size.max(axis=1)
        figure.add_scatter(
            x=np.arange(len(mean)),
            y=mean.astype(np.float32),
            error_y={"array": high - mean, "arrayminus": mean - low, "symmetric": False},
            name=plotly_text(name),
            line={"color": LINES[n], "dash": "solid" if n == 0 else "dash"},
            marker={"symbol": SYMBOLS[n], "size": 9},
            hovertemplate="layer %{x}: %{y:.3g}<extra>%{fullData.name}</extra>",
        )
        parts.append(f"that of {name} is {mean[0]:.1f} in layer 0 and {mean[-1]:.1f} in the last")
    subtitle = "root mean square of a token's vector: mean over the tokens; bars: least and largest"
    base(figure, "How large the vectors are", subtitle, 360)
    legend_below(figure)
    figure.update_xaxes(title="layer", dtick=1)
    figure.update_yaxes(title_text="root mean square", rangemode="tozero")
    return Figure(figure, f"The mean root mean square: {'; '.join(parts)}.")

"""The size of the KV cache against the length of the text."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import LINES, base, legend_below
from oss_lab.plots.tokens import plotly_text

DASHES = ("solid", "dash", "dot", "dashdot")
GIGABYTE = 10**9


@check_arguments
def cache_size(tokens: Sequence[int], sizes: Mapping[str, Sequence[int]]) -> Figure:
    """One line for each way to keep the cache.

    Args:
        tokens: lengths of the text, in increasing order.
        sizes: by name, the bytes at each length.

    Raises:
        LabError: there is nothing to draw, too much, or the lengths do not match.
    """
    if not len(tokens) or not 1 <= len(sizes) <= len(DASHES):
        raise LabError(f"give at least one length, and 1 to {len(DASHES)} ways to keep the cache")
    figure = go.Figure()
    for n, (name, each) in enumerate(sizes.items()):
        if len(each) != len(tokens):
            raise LabError(f"{name!r} has {len(each)} sizes for {len(tokens)} lengths")
        figure.add_scatter(
            x=list(tokens),
            y=(np.array(each) / GIGABYTE).astype(np.float32),
            name=plotly_text(name),
            mode="lines",
            line={"color": LINES[n], "dash": DASHES[n], "width": 3},
            hovertemplate="%{x:,} tokens: %{y:.3g} GB<extra>%{fullData.name}</extra>",
        )
    base(figure, "Size of the KV cache", "one sequence; 1 GB is 1,000,000,000 bytes", 360)
    legend_below(figure)
    figure.update_xaxes(title="tokens", rangemode="tozero", tickformat=",")
    figure.update_yaxes(title_text="GB", rangemode="tozero")
    listed = "; ".join(f"{name}: {each[-1] / GIGABYTE:.2f} GB" for name, each in sizes.items())
    return Figure(figure, f"At {tokens[-1]:,} tokens, {listed}.")

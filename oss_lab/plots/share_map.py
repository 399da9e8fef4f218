"""Shares in a square of names, such as whose rule is followed when two roles contradict."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from oss_lab.errors import LabError
from oss_lab.plots.cells import add_cells
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import SCALE, base
from oss_lab.plots.tokens import plotly_text

if TYPE_CHECKING:
    from oss_lab.analysis.statistics.shares import Share

ROW = 44  # pixels


def share_map(
    shares: "Sequence[Sequence[Share]]",
    sentence: str,
    *,
    names: Sequence[str],
    title: str,
    unit: str,
    rows: str,
    columns: str,
) -> Figure:
    """Draw shares[row][column] in percent, with 95% intervals in the table and on the pointer.

    Args:
        names: of the rows, and of the columns.
        rows, columns: the titles of both axes.

    Raises:
        LabError: there is not one row and one column per name, or a share is of nothing.
    """
    if [len(row) for row in shares] != [len(names)] * len(names):
        raise LabError(f"expected {len(names)} rows of {len(names)} shares, one for each name")
    if any(each.interval is None for row in shares for each in row):
        raise LabError("a share is of nothing; leave its row and column out")
    percents = np.array([[100 * (each.value or 0) for each in row] for row in shares])
    labels = [plotly_text(name) for name in names]
    heat = go.Heatmap(
        z=percents.astype(np.float32).round(1),
        x=labels,
        y=labels,
        customdata=[[describe_interval(each) for each in row] for row in shares],
        colorscale=SCALE,
        zmin=0,
        zmax=100,
        xgap=1,
        ygap=1,
        colorbar={"title": {"text": f"{unit}, %", "side": "right"}, "thickness": 12},
        hovertemplate="%{y}, %{x}: %{z:.1f} % (%{customdata})<extra></extra>",
    )
    figure = go.Figure()
    add_cells(figure, heat, np.array([[f"{v:.0f}" for v in row] for row in percents], object))
    counts = {each.n for row in shares for each in row}
    base(figure, title, f"{unit}, %; n = {' or '.join(map(str, sorted(counts)))} for each cell",
         170 + ROW * len(names))  # fmt: skip
    figure.update_xaxes(title_text=plotly_text(columns), showgrid=False)
    figure.update_yaxes(title_text=plotly_text(rows), showgrid=False)
    return Figure(figure, sentence)


def describe_interval(share: "Share") -> str:
    """The 95% interval in percent."""
    low, high = share.interval or (0, 0)
    return f"{100 * low:.1f} to {100 * high:.1f}"

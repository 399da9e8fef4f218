"""Numbers on a line: the values that a format has, and the weights that are rounded to them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go

from oss_lab.errors import LabError
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import GRAY, INDIGO, RED, base, legend_below, plural, to_array
from oss_lab.plots.tokens import plotly_text

ROW = 70  # pixels
ABOVE = 0.5  # of a row: how far exact weights are above the values


@dataclass(frozen=True)
class Ruler:
    """One row: the values of a format, and optionally weights before and after rounding to them.

    Attributes:
        values: [n], in any order.
        exact, stored: [weights] each.
    """

    values: Any
    exact: Any = field(default=())
    stored: Any = field(default=())


def number_line(rows: Mapping[str, Ruler], title: str) -> Figure:
    """One line for each row: values as strokes, weights as points, joined by what rounding does.

    Raises:
        LabError: there are no rows, or a row has other numbers of exact and stored weights.
    """
    if not rows:
        raise LabError("there is nothing to draw; give at least one row")
    figure, sentences = go.Figure(), []
    for n, (name, ruler) in enumerate(rows.items()):
        values = np.unique(to_array(ruler.values, "n"))
        exact, stored = to_array(ruler.exact, "weights"), to_array(ruler.stored, "weights")
        if exact.shape != stored.shape:
            raise LabError(f"{name} has {len(exact)} exact and {len(stored)} stored weights")
        add_row(figure, -n, values, exact, stored)
        sentences.append(describe(name, values, exact, stored))
    base(figure, title, "", 130 + ROW * len(rows))
    figure.update_xaxes(title="value")
    figure.update_yaxes(
        tickvals=[-n for n in range(len(rows))],
        ticktext=list(map(plotly_text, rows)),
        range=[0.4 - len(rows), 0.9],
        showgrid=False,
    )
    legend_below(figure)
    return Figure(figure, "; ".join(sentences) + ".")


def add_row(
    figure: go.Figure, y: int, values: np.ndarray, exact: np.ndarray, stored: np.ndarray
) -> None:
    marks = {"symbol": "line-ns", "size": 22, "line": {"color": GRAY, "width": 2}}
    add_points(figure, values, y, "a value of the format", marks)
    if not len(exact):
        return
    gaps = [None] * len(exact)
    figure.add_scatter(
        x=[x for steps in zip(exact.tolist(), stored.tolist(), gaps, strict=True) for x in steps],
        y=[y + ABOVE, y, None] * len(exact),
        mode="lines",
        line={"color": GRAY, "width": 1},
        hoverinfo="skip",
        showlegend=False,
    )
    above = {"symbol": "circle-open", "size": 7, "color": INDIGO}
    add_points(figure, exact, y + ABOVE, "a weight before rounding", above)
    below = {"symbol": "circle", "size": 7, "color": RED}
    add_points(figure, stored, y, "a stored weight", below)


def add_points(
    figure: go.Figure, x: np.ndarray, y: float, name: str, marker: dict[str, Any]
) -> None:
    drawn: list[Any] = list(figure.select_traces())
    is_new = all(trace["name"] != name for trace in drawn)
    figure.add_scatter(
        x=x.tolist(),
        y=[y] * len(x),
        mode="markers",
        name=name,
        marker=marker,
        showlegend=is_new,
        hovertemplate="%{x}<extra>" + name + "</extra>",
    )


def describe(name: str, values: np.ndarray, exact: np.ndarray, stored: np.ndarray) -> str:
    text = f"{name}: {plural(len(values), 'value')} from {values[0]:g} to {values[-1]:g}"
    if not len(exact):
        return text
    zeros, error = int((stored == 0).sum()), float(abs(exact - stored).max())
    weights = plural(len(exact), "weight")
    return f"{text}, to which {weights} are rounded by at most {error:.2g}; {zeros} become 0"

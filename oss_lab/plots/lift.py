"""Lifts with their intervals: what experts are chosen for, next to what a shuffle gives.

A lift is P(label | expert) / P(label), and 1 is no preference. The axis is logarithmic, so twice
and half are equally far from 1. A lift without an interval has no bar.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import GRAY, LINES, base, legend_below, ordinal, plural
from oss_lab.plots.tokens import make_visible, plotly_text

SYMBOLS = ("circle", "x", "square-open", "diamond")
Lift = tuple[int, str, float, float, float]
"""An expert, a token's text, its lift, and the bounds of the interval (NaN if there is none)."""


@check_arguments
def lift(series: Mapping[str, Sequence[Lift]]) -> Figure:
    """One row of points for each of the series, highest lift first.

    Raises:
        LabError: one of the series is empty, or a lift is not above 0.
    """
    figure = go.Figure()
    parts: list[str] = []
    for n, (name, found) in enumerate(series.items()):
        if not found or min(each[2] for each in found) <= 0:
            raise LabError(f"the lifts of {name!r} must be at least one number above 0")
        ranked = sorted(found, key=lambda each: -each[2])
        experts, texts, *numbers = zip(*ranked, strict=True)
        names = [f"expert {e}: “{make_visible(t)}”" for e, t in zip(experts, texts, strict=True)]
        value, low, high = np.array(numbers, dtype=float)
        figure.add_scatter(
            x=[ordinal(place) for place in range(1, len(ranked) + 1)],
            y=value.round(3),
            error_y={
                "type": "data",
                "symmetric": False,
                "array": np.nan_to_num(high - value).round(3),
                "arrayminus": np.nan_to_num(value - low).round(3),
                "thickness": 1,
                "width": 4,
            },
            mode="markers",
            name=plotly_text(name),
            text=[plotly_text(each) for each in names],
            marker={"symbol": SYMBOLS[n % 4], "size": 9, "color": LINES[n % len(LINES)]},
            hovertemplate="%{text}: %{y:.2f}<extra>%{fullData.name}</extra>",
        )
        above = int((low > 1).sum())
        intervals = "no intervals" if np.isnan(low).all() else f"{above} of the intervals above 1"
        parts.append(
            f"{name}: {plural(len(ranked), 'lift')}, the largest {value[0]:.1f}"
            f" ({names[0]}), {intervals}"
        )
    if not parts:
        raise LabError("there are no lifts to draw; give at least one series")
    subtitle = "lift; bars: 95 % interval; 1 is no preference"
    base(figure, "What are the experts chosen for?", subtitle, 400)
    legend_below(figure)
    figure.add_hline(y=1, line={"color": GRAY, "dash": "dash"})
    figure.update_xaxes(title="rank", type="category", showgrid=False)
    figure.update_yaxes(title_text="lift", type="log", tickvals=[0.5, 1, 2, 5, 10, 20, 50])
    return Figure(figure, f"{'; '.join(parts)}.")

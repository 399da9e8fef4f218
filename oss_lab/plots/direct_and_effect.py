"""Direct parts of a logit against the effects of removing them, as points.

On the diagonal, the effect is the direct part. A point far above it acts through later layers. The
largest direct part and the largest effect are named; the others have their names in hover texts.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import GRAY, LINES, base, legend_below, require_finite
from oss_lab.plots.tokens import plotly_text

SYMBOLS = ("circle", "diamond", "x", "square-open")
Part = tuple[str, float, float]
"""A part's name, its direct part, and how much the logit falls without it."""


@check_arguments
def direct_and_effect(series: Mapping[str, Sequence[Part]]) -> Figure:
    """One point for each part: its direct part across, its effect up.

    Raises:
        LabError: one of the series is empty, or a number is not finite.
    """
    if not series or not all(series.values()):
        raise LabError("there are no parts to draw; give at least one part in each of the series")
    figure = go.Figure()
    every = [part for parts in series.values() for part in parts]
    numbers = np.array([part[1:] for part in every], dtype=float)
    require_finite(numbers)
    direct, effect = (every[int(np.abs(column).argmax())] for column in numbers.T)
    for n, (name, parts) in enumerate(series.items()):
        figure.add_scatter(
            x=[round(part[1], 3) for part in parts],
            y=[round(part[2], 3) for part in parts],
            mode="markers",
            name=plotly_text(name),
            text=[plotly_text(part[0]) for part in parts],
            marker={"symbol": SYMBOLS[n % 4], "size": 9, "color": LINES[n % len(LINES)]},
            hovertemplate="%{text}: direct part %{x:+.2f}, effect %{y:+.2f}<extra></extra>",
        )
    base(
        figure,
        "Direct parts of a logit, and what happens without them",
        "one point per part; dashed: the effect equals the direct part",
        380,
    )
    legend_below(figure)
    low, high = float(numbers.min()), float(numbers.max())
    line = {"color": GRAY, "dash": "dash"}
    figure.add_shape(type="line", x0=low, y0=low, x1=high, y1=high, line=line)
    middle = numbers[:, 0].min() / 2 + numbers[:, 0].max() / 2
    for name, x, y in dict.fromkeys((direct, effect)):
        side = "right" if x > middle else "left"
        figure.add_annotation(
            x=x, y=y, text=plotly_text(name), showarrow=False, xanchor=side, yanchor="bottom"
        )
    figure.update_xaxes(title="direct part")
    figure.update_yaxes(title_text="effect: fall of the logit")
    return Figure(
        figure,
        f"Of {len(every)} parts, {describe(direct)} has the largest direct part, and"
        f" {describe(effect)} the largest effect.",
    )


def describe(part: Part) -> str:
    name, direct, effect = part
    return f"{name} (direct part {direct:+.1f}, effect {effect:+.1f})"

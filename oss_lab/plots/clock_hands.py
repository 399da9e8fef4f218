"""RoPE as clocks: one clock for each pair of dimensions, with a hand for each of two positions."""

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go

from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import GRAY, INDIGO, PLOT_WIDTH, RED, base, legend_below, to_array

APART = 2.4  # radii between the centers of two clocks
MOST = 16  # clocks; more would be too small to read
HANDS = ((INDIGO, "solid", "circle"), (RED, "dot", "diamond"))


@check_arguments
def clock_hands(frequencies: Any, positions: tuple[int, int]) -> Figure:
    """The hands of all clocks at two positions; 0 is to the right, and hands turn to the left.

    Args:
        frequencies: [pair] in radians per position.

    Raises:
        LabError: there are no pairs, or more than MOST.
    """
    turning = to_array(frequencies, "pair")
    if not 1 <= len(turning) <= MOST:
        raise LabError(f"there are {len(turning)} frequencies; give 1 to {MOST}, one per clock")
    figure, centers = go.Figure(), APART * np.arange(len(turning))
    degrees = np.degrees(turning * (positions[1] - positions[0]))
    text = [f"pair {n}: {turned:.3g}°" for n, turned in enumerate(degrees)]
    for center in centers:
        circle = {"type": "circle", "x0": center - 1, "x1": center + 1, "y0": -1, "y1": 1}
        figure.add_shape(circle, line={"color": GRAY, "width": 1})
    for position, (color, dash, symbol) in zip(positions, HANDS, strict=True):
        angles = (turning * position) % (2 * math.pi)
        tips = centers + np.cos(angles), np.sin(angles)
        for center, x, y in zip(centers, *tips, strict=True):
            hand = {"type": "line", "x0": center, "y0": 0, "x1": x, "y1": y}
            figure.add_shape(hand, line={"color": color, "dash": dash, "width": 2})
        figure.add_scatter(
            x=tips[0].round(3), y=tips[1].round(3), text=text, mode="markers",
            name=f"position {position}", marker={"color": color, "symbol": symbol, "size": 8},
            hovertemplate="%{text}<extra>%{fullData.name}</extra>",
        )  # fmt: skip
    radius = PLOT_WIDTH / (APART * len(turning))
    subtitle = "one clock per pair of dimensions, the fastest on the left"
    base(figure, "The hands of RoPE at two positions", subtitle, round(190 + 2.4 * radius))
    legend_below(figure)
    figure.update_xaxes(
        tickvals=centers, ticktext=[f"pair {n}" for n in range(len(turning))], showgrid=False,
        range=[-1.2, centers[-1] + 1.2],
    )  # fmt: skip
    figure.update_yaxes(visible=False, range=[-1.2, 1.2], scaleanchor="x")
    listed = ", ".join(f"{turned:.3g}" for turned in degrees)
    return Figure(
        figure,
        f"From position {positions[0]} to {positions[1]}, the hands of pairs 0 to"
        f" {len(turning) - 1} turn by {listed} degrees.",
    )

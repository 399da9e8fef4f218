"""Where two models differ: the difference at each point of each layer, over the size of the values.

Points are in the order of the computation, so the first marked cell is where to look for the cause.
"""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.cells import UNREADABLE, add_cells
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import RED, SCALE, base, require_finite, to_array

ROW = 34  # pixels
LARGEST = 10.0  # where the colors end; small differences matter more than the size of large ones


@check_arguments
def differences(apart: Mapping[tuple[str, int], float], *, tolerance: float = 1e-4) -> Figure:
    """Layer x point map of relative differences, on a logarithmic scale; the first has a frame.

    Args:
        apart: a number for each (point, layer), points in the order of the computation.
        tolerance: differences up to this are rounding, and their cells are empty.

    Raises:
        LabError: a layer lacks a point of another one, or a number is not finite.
    """
    points, layers = list(dict.fromkeys(p for p, _ in apart)), sorted({n for _, n in apart})
    if not apart or len(apart) != len(points) * len(layers):
        raise LabError("expected a number for every point of every layer, and at least one")
    values = to_array([[apart[point, layer] for point in points] for layer in layers])
    require_finite(values)
    differs = values > tolerance
    text = [[show(v) if v > tolerance else "" for v in row] for row in values]
    ends = np.log10(tolerance), np.log10(LARGEST)
    marks = [n for n in range(int(ends[0]), int(ends[1]) + 1) if n % 2 == 0]
    heat = go.Heatmap(
        z=np.log10(values.clip(tolerance, LARGEST)).astype(np.float32).round(3),
        x=points,
        y=[f"layer {layer}" for layer in layers],
        text=[[f"{v:.2g}" for v in row] for row in values],
        colorscale=SCALE,
        zmin=ends[0],
        zmax=ends[1],
        xgap=1,
        ygap=1,
        colorbar={
            "title": {"text": "relative difference", "side": "right"},
            "thickness": 12,
            "tickvals": marks,
            "ticktext": [f"{10.0**n:g}" for n in marks],
        },
        hovertemplate="%{y}, %{x}: %{text}<extra></extra>",
    )
    figure = go.Figure()
    readable = add_cells(figure, heat, np.array(text, dtype=object))
    subtitle = f"largest change over the root mean square; empty where it is at most {tolerance:g}"
    base(
        figure,
        "Where two models differ",
        subtitle if readable else subtitle + UNREADABLE,
        200 + ROW * len(layers),
    )
    figure.update_xaxes(showgrid=False, tickangle=-90)
    figure.update_yaxes(showgrid=False)
    if not differs.any():
        return Figure(figure, f"The models do not differ by more than {tolerance:g} at any point.")
    row, column = np.argwhere(differs)[0]
    frame = {"color": RED, "width": 4}
    figure.add_shape(
        type="rect", x0=column - 0.5, x1=column + 0.5, y0=row - 0.5, y1=row + 0.5, line=frame
    )
    return Figure(
        figure,
        f"The models first differ in layer {layers[row]}, at {points[column]} (relative difference"
        f" {values[row, column]:.2g}); {differs.sum()} of {differs.size} points differ.",
    )


def show(value: float) -> str:
    """One digit, or a whole number."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1g}"

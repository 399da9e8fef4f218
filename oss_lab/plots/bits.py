"""What fewer bits per weight do to a model: its accuracy, and the change of its logits."""

from collections.abc import Mapping

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from oss_lab.errors import LabError
from oss_lab.plots.figure import Figure
from oss_lab.plots.signed_map import PANEL
from oss_lab.plots.style import GREEN, INDIGO, base


def accuracy_by_bits(found: Mapping[int, tuple[float, float]], unit: str) -> Figure:
    """Two panels of bars, one bar for each number of bits.

    Args:
        found: by bits, the accuracy from 0 to 1 and the largest change of a logit.
        unit: what the accuracy is the share of, such as "12 products".
    """
    if not found:
        raise LabError("there is nothing to draw; measure at least one number of bits")
    titles = ("right answers, %", "largest change of a logit")
    figure = make_subplots(cols=2, subplot_titles=titles, horizontal_spacing=0.12)
    names = [f"{bits} bits" for bits in found]
    right = [100 * accuracy for accuracy, _ in found.values()]
    add_bars(figure, 1, names, right, INDIGO, "")
    add_bars(figure, 2, names, [change for _, change in found.values()], GREEN, "/")
    base(
        figure,
        "Every matrix at fewer bits per weight",
        f"accuracy: share of {unit}",
        340,
        above=PANEL,
    )
    figure.update_annotations(font_size=13)
    figure.update_layout(showlegend=False)
    figure.update_yaxes(range=[0, 115], col=1)
    most = max(change for _, change in found.values()) or 1
    figure.update_yaxes(range=[0, 1.15 * most], col=2)
    parts = [
        f"{bits} bits: {accuracy:.0%} of {unit} right, logits change by up to {change:.1f}"
        for bits, (accuracy, change) in found.items()
    ]
    return Figure(figure, "; ".join(parts) + ".")


def add_bars(
    figure: go.Figure, col: int, names: list[str], heights: list[float], color: str, pattern: str
) -> None:
    figure.add_bar(
        x=names,
        y=heights,
        text=[f"{height:.0f}" if col == 1 else f"{height:.1f}" for height in heights],
        textposition="outside",
        marker={"color": color, "pattern_shape": pattern},
        hovertemplate="%{x}: %{y:.3g}<extra></extra>",
        row=1,
        col=col,
    )

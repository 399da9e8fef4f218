"""Total and active parameters as areas: one square per model, and in it the active ones.

Every model has its own scale, because the largest has 30,000 times the parameters of the smallest.
"""

from collections.abc import Mapping
from math import sqrt

import plotly.graph_objects as go

from oss_lab.checkpoint.plan import Parameters
from oss_lab.errors import LabError
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import FAINT, GRAY, INDIGO, base, legend_below
from oss_lab.plots.tokens import plotly_text

STEP = 1.3  # from one square to the next, in sides of a square


def parameter_areas(models: Mapping[str, Parameters]) -> Figure:
    """A square of area 1 for each model, with the share of its active parameters filled.

    Args:
        models: by name, what `count_parameters` returns.
    """
    if not models:
        raise LabError("there are no models to draw; give at least one")
    figure = go.Figure()
    add_squares(figure, "all", {name: (each.total, 1.0) for name, each in models.items()}, FAINT)
    active = {name: (p.active, sqrt(p.active / p.total)) for name, p in models.items()}
    add_squares(figure, "active for one token", active, INDIGO)
    base(
        figure,
        "Total and active parameters",
        "area = number of parameters; each model has its own scale",
        360,
    )
    figure.update_layout(barmode="overlay")
    figure.update_xaxes(
        tickvals=[n * STEP + 0.5 for n in range(len(models))],
        ticktext=[f"{plotly_text(name)}: {p.active / p.total:.1%}" for name, p in models.items()],
        tickfont={"size": 14},
        showgrid=False,
    )
    figure.update_yaxes(visible=False, scaleanchor="x")
    legend_below(figure)
    return Figure(figure, "; ".join(describe(*each) for each in models.items()) + ".")


def add_squares(
    figure: go.Figure, name: str, squares: Mapping[str, tuple[int, float]], color: str
) -> None:
    """A bar as wide as it is high for each model: (parameters, side), in the lower left corner."""
    sides = [side for _, side in squares.values()]
    figure.add_bar(
        x=[n * STEP + side / 2 for n, side in enumerate(sides)],
        y=sides,
        width=sides,
        name=name,
        text=[f"{plotly_text(model)}, {name}: {n:,}" for model, (n, _) in squares.items()],
        textposition="none",
        marker={"color": color, "line": {"color": GRAY, "width": 1}},
        hovertemplate="%{text}<extra></extra>",
    )


def describe(name: str, parameters: Parameters) -> str:
    active, total = parameters.active, parameters.total
    used = f"{active:,} ({active / total:.1%})"
    return f"{name} has {total:,} parameters, of which one token uses {used}"

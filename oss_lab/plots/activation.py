"""The activation inside an expert: its output against the gate, one line per value of up."""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from oss_lab.errors import LabError
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import LINES, base, legend_below, require_finite, to_array

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def activation_curves(gate: Any, outputs: Mapping[str, Any]) -> Figure:
    """One line per entry of `outputs`, each [n] like `gate`.

    Raises:
        LabError: a line has another length than `gate`, there are no lines, or too many.
    """
    x = to_array(gate, "n")
    lines = {name: to_array(each, "n") for name, each in outputs.items()}
    if not 1 <= len(lines) <= len(DASHES):
        raise LabError(f"expected 1 to {len(DASHES)} lines, got {len(lines)}")
    figure = go.Figure()
    for n, (name, y) in enumerate(lines.items()):
        if y.shape != x.shape:
            raise LabError(f"{name} has {len(y)} values and gate has {len(x)}; give equally many")
        require_finite(y)
        figure.add_scatter(
            x=x.round(3).tolist(),
            y=y.round(3).tolist(),
            mode="lines",
            name=name,
            line={"color": LINES[n], "dash": DASHES[n]},
            hovertemplate="gate %{x}, output %{y}<extra>%{fullData.name}</extra>",
        )
    base(figure, "What an expert's activation makes of gate and up", "", 420)
    figure.update_xaxes(title="gate")
    figure.update_yaxes(title_text="output")
    legend_below(figure)
    ranges = [f"with {name} from {y.min():.1f} to {y.max():.1f}" for name, y in lines.items()]
    return Figure(figure, f"The output over gates from {x[0]:g} to {x[-1]:g}: {', '.join(ranges)}.")

"""Groups of bars, one bar per series in each group, such as shares right before and after."""

from collections.abc import Mapping

import plotly.graph_objects as go

from oss_lab.errors import LabError
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import BLUE, GREEN, RED, base, legend_below

STYLES = ((BLUE, ""), (GREEN, "/"), (RED, "."))


def compare_bars(
    series: Mapping[str, Mapping[str, float]],
    sentence: str,
    *,
    title: str,
    unit: str,
    percent: bool = False,
) -> Figure:
    """Draw series[name][group], at most three series; `sentence` says what they show.

    Raises:
        LabError: there is no series or there are more than three, or their groups differ.
    """
    if not 0 < len(series) <= len(STYLES):
        raise LabError(f"expected 1 to {len(STYLES)} series, got {len(series)}")
    groups, *others = (list(values) for values in series.values())
    if any(other != groups for other in others):
        raise LabError(f"every series needs the groups {', '.join(groups)}, in this order")
    figure, form = go.Figure(), ".0%" if percent else ".2g"
    for (name, values), (color, pattern) in zip(series.items(), STYLES, strict=False):
        figure.add_bar(
            x=groups,
            y=list(values.values()),
            name=name,
            text=[f"{value:{form}}" for value in values.values()],
            textposition="outside",
            cliponaxis=False,
            marker={"color": color, "pattern": {"shape": pattern}},
        )
    base(figure, title, unit, 360)
    if len(series) > 1:
        legend_below(figure)
    figure.update_yaxes(title_text=unit, rangemode="tozero", tickformat=".0%" if percent else "")
    return Figure(figure, sentence)

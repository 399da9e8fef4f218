"""Shares with their intervals, one line per series, such as right answers by number of calls."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from oss_lab.errors import LabError
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import LINES, base, legend_below, plural
from oss_lab.plots.tokens import plotly_text

if TYPE_CHECKING:
    from oss_lab.analysis.statistics.shares import Share

MARKS = (("circle", 8, "solid"), ("square-open", 13, "dash"), ("diamond-open", 18, "dot"))
"""Symbol, size and dash of each line; equal shares are open symbols around a filled one."""


def compare_shares(
    series: "Mapping[str, Mapping[str, Share]]", *, title: str, unit: str, groups: str
) -> Figure:
    """Draw series[name][group] in percent: at most three lines, one marker with a bar per group.

    Args:
        unit: what is counted, such as "right".
        groups: the title of the horizontal axis, such as "calls".

    Raises:
        LabError: there is no series or there are more than three, their groups differ, or their
            shares are of different numbers, or of none.
    """
    if not 0 < len(series) <= len(MARKS):
        raise LabError(f"expected 1 to {len(MARKS)} series, got {len(series)}")
    names, *others = (list(shares) for shares in series.values())
    if any(other != names for other in others):
        raise LabError(f"every series needs the groups {', '.join(names)}, in this order")
    counts = {share.n for shares in series.values() for share in shares.values()}
    if len(counts) != 1 or 0 in counts:
        raise LabError(f"every share must be of the same number, 1 or more; got {sorted(counts)}")
    (n,) = counts
    figure = go.Figure()
    for place, (name, shares) in enumerate(series.items()):
        add_line(figure, place, name, shares)
    base(figure, title, f"{plural(n, 'problem')} for each marker; bars: 95 % interval", 380)
    legend_below(figure)
    figure.update_xaxes(title=plotly_text(groups), type="category", showgrid=False)
    figure.update_yaxes(title_text=f"{plotly_text(unit)}, %", range=[-3, 104])
    parts = (
        f"{name}: " + ", ".join(f"{at} {groups} {describe(each)}" for at, each in shares.items())
        for name, shares in series.items()
    )
    return Figure(figure, f"Share {unit} of {n}, with 95% intervals. {'; '.join(parts)}.")


def add_line(figure: go.Figure, place: int, name: str, shares: "Mapping[str, Share]") -> None:
    """One line of markers; lines differ in color, symbol and dash."""
    symbol, size, dash = MARKS[place]
    percents = [to_percents(each) for each in shares.values()]
    figure.add_scatter(
        x=list(shares),
        y=[round(value, 2) for value, _, _ in percents],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [round(high - value, 2) for value, _, high in percents],
            "arrayminus": [round(value - low, 2) for value, low, _ in percents],
            "thickness": 1,
            "width": 4,
        },
        mode="lines+markers",
        name=plotly_text(name),
        cliponaxis=False,
        line={"color": LINES[place], "dash": dash},
        marker={"symbol": symbol, "size": size},
        hovertemplate="%{x}: %{y:.1f} %<extra>%{fullData.name}</extra>",
    )


def to_percents(share: "Share") -> tuple[float, float, float]:
    """The share and the bounds of its interval, in percent."""
    assert share.value is not None
    assert share.interval is not None
    low, high = share.interval
    return 100 * share.value, 100 * low, 100 * high


def describe(share: "Share") -> str:
    value, low, high = to_percents(share)
    return f"{value:.0f}% ({low:.0f}% to {high:.0f}%)"

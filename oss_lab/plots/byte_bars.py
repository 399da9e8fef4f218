"""Which parts the bytes belong to: one stacked bar per row, such as a model or a way to run it."""

from collections.abc import Mapping

import plotly.graph_objects as go

from oss_lab.errors import LabError
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import APART, LINES, base, legend_below
from oss_lab.plots.tokens import plotly_text

PATTERNS = ("", "/", ".", "x", "-", "|")
UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def byte_bars(rows: Mapping[str, Mapping[str, int]], title: str) -> Figure:
    """One bar for each row, with one section for each of its parts.

    Args:
        rows: bytes by the name of the part, by the name of the row. All rows have the same parts,
            at most six.

    Raises:
        LabError: there are no rows, or their parts differ or are too many.
    """
    parts = list(next(iter(rows.values()), ()))
    if not 0 < len(parts) <= len(PATTERNS):
        raise LabError(f"expected 1 to {len(PATTERNS)} parts in each row, got {len(parts)}")
    for name, row in rows.items():
        if list(row) != parts:
            raise LabError(f"{name} has the parts {list(row)}; expected {parts}, as the first row")
    size, unit = choose_unit(max(sum(row.values()) for row in rows.values()))
    figure = go.Figure()
    for n, part in enumerate(parts):
        figure.add_bar(
            y=[plotly_text(name) for name in rows],
            x=[row[part] / size for row in rows.values()],
            name=plotly_text(part),
            orientation="h",
            marker={"color": LINES[n], "pattern": {"shape": PATTERNS[n]}},
            text=[f"{row[part]:,} bytes" for row in rows.values()],
            textposition="none",
            hovertemplate="%{y}, %{fullData.name}: %{text}<extra></extra>",
        )
    base(figure, plotly_text(title), "", 170 + 40 * len(rows))
    figure.update_layout(barmode="stack")
    figure.update_xaxes(title=unit, rangemode="tozero")
    figure.update_yaxes(autorange="reversed", showgrid=False, ticklabelstandoff=APART)
    legend_below(figure)
    figure.update_layout(legend_traceorder="normal")
    return Figure(figure, "; ".join(describe(*each) for each in rows.items()) + ".")


def choose_unit(most: float) -> tuple[float, str]:
    """The largest unit of which there is at least one, and its size in bytes."""
    return next((each for each in UNITS if most >= each[0]), (1.0, "bytes"))


def describe(name: str, row: Mapping[str, int]) -> str:
    total = sum(row.values())
    size, unit = choose_unit(total)
    shares = ", ".join(f"{part} {count / max(total, 1):.0%}" for part, count in row.items())
    return f"{name}: {total / size:.3g} {unit}, of which {shares}"

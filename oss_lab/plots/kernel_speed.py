"""How fast kernels are, as a share of what the machine they ran on can do at best.

Draws the JSON that `python -m oss_kernels.bench --results` writes. A kernel that touches each
weight for one token is bound by memory, one for many tokens by arithmetic: only the share of what
binds it says how good it is.
"""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from oss_lab.plots.figure import Figure
from oss_lab.plots.style import BLUE, GRAY, GREEN, base, legend_below
from oss_lab.plots.tokens import plotly_text

ROW = 24  # pixels
MEMORY, MATRIX = ("memory", BLUE, "/"), ("matrix products", GREEN, "")


def kernel_speed(found: Mapping[str, Any]) -> Figure:
    """A bar for each measured kernel: the share of the memory's speed that it reaches.

    Of a GPU, a second one: the share of the rate of large matrix products.
    """
    device, rows = found["device"], found["rows"][::-1]
    if "limits" in found:
        names = [f"{row['case']} ({row['model']})" for row in rows]
        series = {MEMORY: "share_of_copy", MATRIX: "share_of_matrix"}
        where, what = device["name"], "copying memory and of large products"
    else:
        names = [row["name"] for row in rows]
        series = {MEMORY: "share_of_reading"}
        where, what = f"{device['name']}, {device['threads']} threads", "reading memory"
    figure = go.Figure()
    for (name, color, pattern), key in series.items():
        figure.add_bar(
            y=[plotly_text(name) for name in names],
            x=[100 * row[key] for row in rows],
            name=name,
            orientation="h",
            marker={"color": color, "pattern_shape": pattern},
            hovertemplate="%{y}: %{x:.0f} %<extra>" + name + "</extra>",
        )
    base(
        figure,
        "Kernels beside the machine's limits",
        f"{plotly_text(where)}, {found['date'][:10]}; share of the speed of {what} in the same run",
        190 + ROW * len(rows) * len(series),
    )
    most = max(row[key] for row in rows for key in series.values())
    figure.update_xaxes(title="share of the measured limit, %", range=[0, 105 * max(1, most)])
    figure.add_vline(100, line={"color": GRAY, "dash": "dash", "width": 1})
    figure.update_layout(showlegend=False)
    if len(series) > 1:
        legend_below(figure)
    return Figure(figure, _told(names, shares(found)[::-1]))


def shares(found: Mapping[str, Any]) -> list[tuple[float, float]]:
    """(of the memory's speed, of the rate of arithmetic) for each row; the larger is nearer.

    The bench of a CPU measures no rate of arithmetic: the highest of any row stands for it.
    """
    rows = found["rows"]
    if "limits" in found:
        return [(row["share_of_copy"], row["share_of_matrix"]) for row in rows]
    highest = max(row["gigaflops"] for row in rows) or 1
    return [(row["share_of_reading"], row["gigaflops"] / highest) for row in rows]


def _told(names: list[str], shares: list[tuple[float, float]]) -> str:
    """Only of what memory limits: elsewhere a low share of its speed is no fault."""
    pairs = zip(names, shares, strict=True)
    limited = {name: memory for name, (memory, arithmetic) in pairs if memory >= arithmetic}
    if not limited:
        return f"None of {len(names)} rows is nearer to memory's limit than to arithmetic's."
    best = max(limited, key=limited.__getitem__)
    return (
        f"Of the {len(limited)} of {len(names)} rows nearer to memory's limit than to arithmetic's,"
        f" {best} comes nearest to the speed of memory: {limited[best]:.0%} of it."
    )

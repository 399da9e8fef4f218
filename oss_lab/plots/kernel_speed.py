"""How fast kernels are, as a share of what the machine they ran on can do at best.

Draws the JSON that `python -m oss_kernels.bench --results` writes. A kernel that touches each
weight for one token is bound by memory, one for many tokens by arithmetic: only the share of what
binds it says how good it is.
"""

from typing import Any

import plotly.graph_objects as go

from oss_lab.plots.figure import Figure
from oss_lab.plots.style import base
from oss_lab.plots.tokens import plotly_text

ROW = 24  # pixels
MEMORY, MATRIX = ("memory", "rgb(136, 204, 238)", "/"), ("matrix products", "rgb(17, 119, 51)", "")


def kernel_speed(found: dict[str, Any]) -> Figure:
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
    for (name, colour, pattern), key in series.items():
        figure.add_bar(
            y=[plotly_text(name) for name in names],
            x=[row[key] for row in rows],
            name=name,
            orientation="h",
            marker={"color": colour, "pattern_shape": pattern},
            hovertemplate="%{y}: %{x:.0%}<extra>" + name + "</extra>",
        )
    base(
        figure,
        "Kernels beside the machine's limits",
        f"{plotly_text(where)}, {found['date'][:10]}; share of the speed of {what} in the same run",
        170 + ROW * len(rows) * len(series),
    )
    figure.update_xaxes(title="share", tickformat=".0%", rangemode="tozero")
    figure.update_layout(showlegend=len(series) > 1)
    shares = [row[series[MEMORY]] for row in rows]
    best = max(range(len(rows)), key=shares.__getitem__)
    return Figure(
        figure,
        f"Of {len(rows)} figures, {names[best]} comes nearest to the speed of memory:"
        f" {shares[best]:.0%} of it.",
    )

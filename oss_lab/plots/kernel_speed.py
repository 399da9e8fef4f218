"""How fast kernels are, as a share of what the machine they ran on can do at best.

Reads the JSON that `python -m oss_kernels.bench --results` writes. A kernel that touches each
weight for one token is bound by memory, one for many tokens by arithmetic: only the share of what
binds it says how good it is.
"""

from typing import Any

import plotly.graph_objects as go

from oss_lab.plots.figure import Figure
from oss_lab.plots.style import CHANNELS, base
from oss_lab.plots.tokens import plotly_text

ROW = 24  # pixels


def kernel_speed(found: dict[str, Any]) -> Figure:
    """A bar for each measured kernel: the share of the memory's speed that it reaches.

    Of a GPU, a second one: the share of the rate of large matrix products.
    """
    on_gpu = "limits" in found
    rows = found["rows"][::-1]
    names = [
        plotly_text(f"{row['case']} ({row['model']})" if on_gpu else row["name"]) for row in rows
    ]
    figure = go.Figure()
    series = [("memory", "share_of_copy" if on_gpu else "share_of_reading", "analysis")]
    series += [("matrix products", "share_of_matrix", "final")] if on_gpu else []
    for name, key, style in series:
        figure.add_bar(
            y=names,
            x=[row[key] for row in rows],
            name=name,
            orientation="h",
            marker={"color": CHANNELS[style].colour, "pattern_shape": CHANNELS[style].pattern},
            hovertemplate="%{y}: %{x:.0%}<extra>" + name + "</extra>",
        )
    device = found["device"]
    what = "copying memory and of large products" if on_gpu else "reading memory"
    where = device["name"] if on_gpu else f"{device['name']}, {device['threads']} threads"
    base(
        figure,
        "Kernels beside the machine's limits",
        f"{plotly_text(where)}, {found['date'][:10]}; share of the speed of {what} in the same run",
        170 + ROW * len(rows) * len(series),
    )
    figure.update_xaxes(title="share", tickformat=".0%", rangemode="tozero")
    figure.update_layout(showlegend=on_gpu)
    best = max(rows, key=lambda row: row[series[0][1]])
    label = best["case"] if on_gpu else best["name"]
    return Figure(
        figure,
        f"Of {len(rows)} figures, {label} comes nearest to the speed of memory,"
        f" {best[series[0][1]]:.0%} of it.",
    )

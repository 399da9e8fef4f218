"""How fast kernels are, as a share of the measured limits of the machine they ran on.

Draws the JSON that `python -m oss_kernels.bench --results` writes. A kernel that reads each weight
for one token is limited by memory, one that runs many tokens by arithmetic. Only the share of the
limit that applies shows how good a kernel is.
"""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import APART, GRAY, GREEN, INDIGO, base, legend_below, plural
from oss_lab.plots.tokens import plotly_text

ROW = 24  # pixels
MEMORY, MATRIX = ("memory", INDIGO, "/"), ("matrix products", GREEN, "")


@check_arguments
def kernel_speed(found: Mapping[str, Any]) -> Figure:
    """One bar for each measured kernel: the share of the memory's speed that it reaches.

    On a GPU a second bar shows the share of the rate of large matrix products.
    """
    if missing := [name for name in ("device", "rows", "date") if not found.get(name)]:
        raise LabError(
            f"the results have no {missing[0]!r}; give the JSON that `python -m oss_kernels.bench"
            " --results` writes"
        )
    device, rows = found["device"], found["rows"][::-1]
    if "limits" in found:
        names = [f"{row['case']} ({row['model']})" for row in rows]
        series = {MEMORY: "share_of_copy", MATRIX: "share_of_matrix"}
        where, what = device["name"], "copying memory and of large matrix products"
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
        "Kernel speed as a share of the machine's limits",
        f"{plotly_text(where)}, {found['date'][:10]}; share of the speed of {what} in the same run",
        190 + ROW * len(rows) * len(series),
    )
    most = max(row[key] for row in rows for key in series.values())
    figure.update_xaxes(title="share of the measured limit, %", range=[0, 105 * max(1, most)])
    figure.update_yaxes(ticklabelstandoff=APART)
    figure.add_vline(100, line={"color": GRAY, "dash": "dash", "width": 1})
    figure.update_layout(showlegend=False)
    if len(series) > 1:
        legend_below(figure)
    return Figure(figure, _sentence(names, shares(found)[::-1]))


def shares(found: Mapping[str, Any]) -> list[tuple[float, float]]:
    """(share of the memory's speed, share of the arithmetic rate) for each row.

    The larger share is the limit that applies. The bench of a CPU does not measure its arithmetic
    rate, so the highest rate of any row is used.
    """
    rows = found["rows"]
    if "limits" in found:
        return [(row["share_of_copy"], row["share_of_matrix"]) for row in rows]
    highest = max(row["gigaflops"] for row in rows) or 1
    return [(row["share_of_reading"], row["gigaflops"] / highest) for row in rows]


def _sentence(names: list[str], shares: list[tuple[float, float]]) -> str:
    """Covers only rows that memory limits: elsewhere a low share of its speed is no defect."""
    pairs = zip(names, shares, strict=True)
    limited = {name: memory for name, (memory, arithmetic) in pairs if memory >= arithmetic}
    if not limited:
        return f"None of {plural(len(names), 'row')} is limited by memory rather than arithmetic."
    best = max(limited, key=limited.__getitem__)
    return (
        f"Memory, not arithmetic, limits {len(limited)} of {plural(len(names), 'row')}; of these,"
        f" {best} is fastest, at {limited[best]:.0%} of the memory's speed."
    )

"""The time of one decode step against the tokens before it, beside what reading memory allows.

Draws the JSON that `python -m oss_lab.bench --results` writes.
"""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import LINES, base, legend_below
from oss_lab.plots.tokens import plotly_text

TASK = "step after "


@check_arguments
def context_cost(report: Mapping[str, Any]) -> Figure:
    """Two lines: the measured medians with their ranges, and bytes / rate of reading memory.

    Raises:
        LabError: the task "context" was not measured.
    """
    rows = [row for row in report["rows"] if row["task"].startswith(TASK)]
    if not rows:
        raise LabError("the results have no task 'context'; run it with `--tasks context`")
    tokens = [int(row["task"].removeprefix(TASK).replace(",", "")) for row in rows]
    spreads = [row["spread"] for row in rows]
    medians = [spread["median"] for spread in spreads]
    limits = [row["bytes"] / report["reading"] / 1e6 for row in rows]  # GB/s are bytes/µs / 1,000
    figure = go.Figure()
    figure.add_scatter(
        x=tokens,
        y=medians,
        name="measured",
        mode="lines+markers",
        line={"color": LINES[0], "width": 3},
        error_y={
            "array": [spread["high"] - spread["median"] for spread in spreads],
            "arrayminus": [spread["median"] - spread["low"] for spread in spreads],
        },
        hovertemplate="%{x:,} tokens: %{y:.1f} ms<extra></extra>",
    )
    figure.add_scatter(
        x=tokens,
        y=limits,
        name="formula: bytes ÷ rate of reading memory",
        mode="lines",
        line={"color": LINES[1], "dash": "dash", "width": 3},
        hovertemplate="%{x:,} tokens: %{y:.1f} ms<extra></extra>",
    )
    device, n = report["device"], rows[0]["n"]
    base(
        figure,
        "Time of a decode step against the tokens before it",
        f"{report['checkpoint']}, {report['dtype']}; {plotly_text(device['name'])},"
        f" {device['threads']} threads; reading at {report['reading']:.1f} GB/s;"
        f" bars: range, n = {n}",
        360,
    )
    legend_below(figure)
    figure.update_xaxes(title="tokens before", rangemode="tozero", tickformat=",")
    figure.update_yaxes(title_text="ms", rangemode="tozero")
    return Figure(
        figure,
        f"A step takes {medians[0]:.1f} ms after {tokens[0]:,} tokens and {medians[-1]:.1f} ms"
        f" after {tokens[-1]:,}; reading its {rows[0]['bytes'] / 2**20:,.0f} and"
        f" {rows[-1]['bytes'] / 2**20:,.0f} MiB once would take {limits[0]:.1f} and"
        f" {limits[-1]:.1f} ms.",
    )

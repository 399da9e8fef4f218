"""How many tokens per second a memory allows: its bandwidth, divided by the bytes of one token.

Both axes are logarithmic, so a model is a straight line. The limit is for one reply at a time; a
program that computes several together reads the weights once for all of them.
"""

import textwrap
from collections.abc import Mapping

import plotly.graph_objects as go

from oss_lab.errors import LabError
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import LINES, base, legend_below
from oss_lab.plots.tokens import plotly_text

DASHES = ("solid", "dash", "dot", "dashdot")
LABEL = 14  # characters in a line of a memory's name
MARKERS = ("circle", "square", "diamond", "cross")


def speed_limits(models: Mapping[str, float], memories: Mapping[str, float]) -> Figure:
    """A line for each model, with a point for each memory.

    Args:
        models: bytes that one token reads, by the model's name; at most four.
        memories: GB per second, by the memory's name.

    Raises:
        LabError: there are no memories, no models or too many, or a number is not positive.
    """
    if not memories or not 0 < len(models) <= len(DASHES):
        raise LabError(
            f"expected memories, and 1 to {len(DASHES)} models; got {len(memories)} and"
            f" {len(models)}"
        )
    if wrong := [name for name, n in {**models, **memories}.items() if not n > 0]:
        raise LabError(f"{wrong[0]!r} must have a number above 0")
    order = dict(sorted(memories.items(), key=lambda each: each[1]))
    figure = go.Figure()
    for n, (name, nbytes) in enumerate(models.items()):
        limits = [1e9 * speed / nbytes for speed in order.values()]
        figure.add_scatter(
            x=list(order.values()),
            y=limits,
            name=plotly_text(name),
            mode="lines+markers",
            line={"color": LINES[n], "dash": DASHES[n]},
            marker={"symbol": MARKERS[n], "size": 9},
            text=[plotly_text(memory) for memory in order],
            hovertemplate="%{text}: %{y:.3g} tokens per second<extra>%{fullData.name}</extra>",
        )
    base(figure, "The limit of memory", "tokens per second = bandwidth / bytes per token", 400)
    figure.update_xaxes(
        type="log",
        title="memory",
        tickvals=list(order.values()),
        ticktext=[f"{break_lines(name)}<br>{speed:,.0f} GB/s" for name, speed in order.items()],
        tickangle=0,
    )
    figure.update_yaxes(type="log", dtick=1, title="tokens per second, at most")
    legend_below(figure)
    return Figure(figure, " ".join(describe(*each, order) for each in models.items()))


def break_lines(name: str) -> str:
    return "<br>".join(map(plotly_text, textwrap.wrap(name, LABEL)))


def describe(name: str, nbytes: float, memories: Mapping[str, float]) -> str:
    limits = [
        f"{shorten_number(1e9 * speed / nbytes)} with {memory}"
        for memory, speed in memories.items()
    ]
    return (
        f"{name} reads {nbytes / 1e9:.3g} GB per token, which allows these tokens per second:"
        f" {', '.join(limits)}."
    )


def shorten_number(number: float) -> str:
    """Three digits, never with an exponent."""
    return f"{float(f'{number:.3g}'):,.12g}"

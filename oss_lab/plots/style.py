"""How figures look: colors, patterns of channels, base layout, legend, marked sections.

Colors are from plotly's color-blind safe sets (Safe, Cividis) and are never the only cue: bars have
patterns, cells have numbers, lines have dashes. Every figure is dark ink on white paper. A plotly
figure does not follow JupyterLab's theme, and no gray has a contrast of 4.5 : 1 on both its white
and its dark (#111111) background: the best has 4.3 : 1.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.colors import qualitative

from oss_lab.errors import LabError
from oss_lab.hooks.arguments import describe
from oss_lab.plots.tokens import make_visible, plotly_text
from oss_lab.record.token_labels import TokenLabel, group_by_message

PAPER = "#ffffff"
INK = "#222222"  # text: 15.9 : 1 on PAPER
GRAY = "#767676"  # lines: 4.5 : 1 on PAPER
FAINT = "rgba(118,118,118,0.35)"
MONOSPACE = "DejaVu Sans Mono, Menlo, Consolas, monospace"
SCALE = "Cividis"
BLUE, RED, YELLOW, GREEN, INDIGO = qualitative.Safe[:5]
LINES = [qualitative.Safe[n] for n in (4, 1, 3, 5, 8, 7, 9, 10)]  # at least 3 : 1 on PAPER
PICTURE_WIDTH = 720  # pixels
PLOT_WIDTH = 550  # pixels of it between the labels of rows and the color bar
LABEL = 14  # pixels across a token that is written upright or has two letters
SECTION = 14  # pixels of a line with names of messages
SUBTITLE = 105  # characters in a line of the subtitle
APART = 5  # pixels between an axis and the names along it
STANDOFF = 8  # pixels between the names of tokens and the title of their axis
BELOW = {"orientation": "h", "y": 0, "yref": "container", "yanchor": "bottom", "x": 0}


@dataclass(frozen=True)
class ChannelStyle:
    """A color of plotly's Safe set and a bar pattern."""

    color: str
    pattern: str


CHANNELS: Mapping[str, ChannelStyle] = {
    "analysis": ChannelStyle(BLUE, "-"),
    "commentary": ChannelStyle(YELLOW, "."),
    "final": ChannelStyle(GREEN, ""),
    "format": ChannelStyle("rgb(136, 136, 136)", "|"),
}
"""Harmony's channels. `format` is its special tokens and headers, which are on no channel."""


def to_array(data: Any, *axes: str) -> NDArray[np.float64]:
    """A tensor (any device or dtype), array or nested list as a float64 array.

    An array with named axes is transposed to the order of `axes`.

    Raises:
        LabError: it does not contain numbers, or has other axes.
    """
    wanted = f"expected numbers [{' '.join(axes)}]"
    if axes and hasattr(data, "dims"):
        if set(data.dims) != set(axes):
            raise LabError(f"{wanted}, got an array [{' '.join(map(str, data.dims))}]")
        data = data.transpose(*axes).values
    if hasattr(data, "detach"):
        data = data.detach().cpu().double().numpy()
    try:
        found = np.asarray(data, dtype=np.float64)
    except (TypeError, ValueError):
        raise LabError(f"{wanted}, got {describe(data)}") from None
    if axes and found.ndim != len(axes):
        raise LabError(f"{wanted}, got an array {list(found.shape)}")
    return found


def to_percent(shares: NDArray[np.float64]) -> NDArray[np.uint8 | np.int16]:
    """Shares as whole percents, and no more digits than a reader needs.

    One byte per cell; two if an intervention scaled the shares out of that range.
    """
    require_finite(shares)
    percent = np.rint(100 * shares)
    fits = not percent.size or (percent.min() >= 0 and percent.max() <= 255)
    return percent.astype(np.uint8 if fits else np.int16)


def require_finite(values: NDArray[np.float64]) -> None:
    """Raise LabError for NaN or infinity, which a figure cannot show."""
    if not np.isfinite(values).all():
        raise LabError(
            f"{int((~np.isfinite(values)).sum())} of {values.size} values are NaN or infinite, so"
            " there is nothing to draw; the weights or an intervention caused it"
        )


def require_tokens(expected: int, tokens: Sequence[TokenLabel] | None = None) -> None:
    """Raise LabError unless there are positions, and one label for each where labels are used."""
    if not expected:
        raise LabError("there are no tokens to draw: give the figure at least one")
    if tokens is not None and len(tokens) != expected:
        raise LabError(
            f"there are {len(tokens)} token labels for {expected} positions; label the same tokens"
        )


def base(figure: go.Figure, title: str, subtitle: str, height: int, *, above: int = 0) -> go.Figure:
    """Set title, paper and ink; the width follows the page.

    Args:
        height: in pixels, for a subtitle of one line.
        above: pixels between the subtitle and the plot, for the names of panels or messages.
    """
    lines = textwrap.wrap(subtitle, SUBTITLE, break_long_words=False, break_on_hyphens=False)
    more = 16 * (len(lines) - 1)
    figure.update_layout(
        template="none",
        title={
            "text": title,
            "subtitle": {"text": "<br>".join(lines), "font": {"size": 12}},
            "x": 0,
            "xref": "container",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 14, "l": 12},
            "font": {"size": 16},
        },
        height=height + above + more,
        margin={"l": 20, "r": 10, "t": 72 + above + more, "b": 10},
        font={"color": INK, "size": 12},
        hoverlabel={"bgcolor": PAPER, "bordercolor": GRAY, "font": {"color": INK}},
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
    )
    figure.update_xaxes(automargin=True, gridcolor=FAINT, zeroline=False, ticklabelstandoff=APART)
    figure.update_yaxes(automargin=True, gridcolor=FAINT, zeroline=False, title_standoff=12)
    return figure


def legend_below(figure: go.Figure, **settings: Any) -> go.Figure:
    """Put the legend under the axis, where it takes no width from the plot."""
    return figure.update_layout(showlegend=True, legend=BELOW | settings, margin_b=70)


def token_axis(tokens: Sequence[TokenLabel], **settings: Any) -> dict[str, Any]:
    """Axis settings that name every position by its token, also in hover texts."""
    return {
        "tickmode": "array",
        "tickvals": np.arange(len(tokens), dtype=np.int16),
        "ticktext": [plotly_text(make_visible(token.text)) for token in tokens],
        "tickfont": {"family": MONOSPACE, "size": 11},
        "showgrid": False,
        "ticks": "",
    } | settings


def name_columns(figure: go.Figure, tokens: Sequence[TokenLabel], title: str = "token") -> None:
    """Name the columns of a map by their tokens: all of them if they fit, or every nth."""
    upright = max(len(make_visible(token.text)) for token in tokens) <= 2
    axis = token_axis(tokens, title=title_below(title), tickangle=0 if upright else -90)
    apart = ceil(LABEL * len(tokens) / PLOT_WIDTH)
    if apart == 1:
        figure.update_xaxes(axis)
        return
    figure.update_xaxes(token_axis(tokens, showticklabels=False))
    figure.update_layout(xaxis2=axis | some_labels(axis, range(0, len(tokens), apart), "x"))
    figure.update_layout(xaxis2={"range": [-0.5, len(tokens) - 0.5]})
    figure.add_scatter(x=[0], y=[0], xaxis="x2", mode="markers", opacity=0, hoverinfo="skip")


def title_below(text: str) -> dict[str, Any]:
    """The title of an axis below its labels: by default plotly may write it over long ones."""
    return {"text": text, "standoff": STANDOFF}


def some_labels(axis: Mapping[str, Any], shown: Sequence[int], over: str) -> dict[str, Any]:
    """Settings of a second axis over the axis `over`, with only some of the labels of `axis`.

    The axis below keeps all labels, which are the names in hover texts. An axis is drawn only if
    a trace uses it.
    """
    return {
        "tickvals": np.array(shown, dtype=np.int16),
        "ticktext": [axis["ticktext"][n] for n in shown],
        "overlaying": over,
        "matches": over,
        "showticklabels": True,
        "automargin": True,
        "ticklabelstandoff": APART,
    }


def mark_sections(
    figure: go.Figure, tokens: Sequence[TokenLabel], xaxis: str = "x", width: float = PLOT_WIDTH
) -> None:
    """Name each message above the plot, with a dashed line between messages.

    A name that has no room beside its neighbor is written one line higher.
    """
    ends = [0.0, 0.0]  # where the last name of each line ends, in pixels
    for part in group_by_message(tokens):
        edge = part.start - 0.5
        if part.start:
            figure.add_shape(
                type="line",
                x0=edge,
                x1=edge,
                xref=xaxis,
                y0=0,
                y1=1,
                yref="paper",
                line={"color": GRAY, "dash": "dash"},
            )
        left = part.start * width / len(tokens)
        line = next((n for n, end in enumerate(ends) if end <= left), None)
        if line is None:
            continue
        ends[line] = left + 7 * len(part.name) + 4
        figure.add_annotation(
            text=plotly_text(part.name),
            x=edge,
            xref=xaxis,
            xanchor="left",
            y=1,
            yref="paper",
            yanchor="bottom",
            yshift=SECTION * line,
            showarrow=False,
            font={"size": 11},
        )


def plural(n: int, noun: str) -> str:
    """plural(2, "token") gives "2 tokens"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def ordinal(n: int) -> str:
    """1 gives "1st"."""
    ending = "th" if 10 <= n % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"

"""How figures look: colors, patterns of channels, base layout, legend, marked sections.

Colors are from plotly's color-blind safe sets (Safe, Cividis) and are never the only cue: bars have
patterns, cells have numbers, lines have dashes. The background is transparent and text is a middle
gray, with a contrast of 4.5 : 1 on JupyterLab's light background and 4.2 : 1 on its dark one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.colors import qualitative

from oss_lab.errors import LabError
from oss_lab.hooks.arguments import describe
from oss_lab.plots.tokens import make_visible, plotly_text
from oss_lab.record.token_labels import TokenLabel, group_by_message

GRAY = "#777777"
FAINT = "rgba(119,119,119,0.35)"
MONOSPACE = "DejaVu Sans Mono, Menlo, Consolas, monospace"
SCALE = "Cividis"
BLUE, RED, YELLOW, GREEN = qualitative.Safe[:4]
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


def base(figure: go.Figure, title: str, subtitle: str, height: int) -> go.Figure:
    """Set title, transparent background and gray text; the width follows the page."""
    figure.update_layout(
        template="none",
        title={
            "text": title,
            "subtitle": {"text": subtitle, "font": {"size": 12}},
            "x": 0,
            "xref": "paper",
            "font": {"size": 16},
        },
        height=height,
        margin={"l": 20, "r": 10, "t": 90, "b": 10},
        font={"color": GRAY, "size": 12},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    figure.update_xaxes(automargin=True, gridcolor=FAINT, zeroline=False)
    figure.update_yaxes(automargin=True, gridcolor=FAINT, zeroline=False)
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
        "tickfont": {"family": MONOSPACE, "size": 10},
        "showgrid": False,
        "ticks": "",
    } | settings


def mark_sections(figure: go.Figure, tokens: Sequence[TokenLabel], xaxis: str = "x") -> None:
    """Name each message above the plot, with a dashed line between messages."""
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
        figure.add_annotation(
            text=plotly_text(part.name),
            x=edge,
            xref=xaxis,
            xanchor="left",
            y=1,
            yref="paper",
            yanchor="bottom",
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

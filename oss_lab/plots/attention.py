"""Where heads attend: one row per attending token (query), one column per attended token (key).

Each head has two parts: a column for its sink, the share of attention that goes to no token, and
the pattern over the keys. Stripes mark what a row cannot see: later tokens and, on a sliding layer,
tokens outside the window. The sink and the pattern of a row sum to 100%.

Below each panel are the tokens of the keys that fit. The keys that get the most attention, and the
keys in `marked`, are always named, in bold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from oss_lab.config import ModelConfig
from oss_lab.errors import LabError, check_index
from oss_lab.hooks.arguments import check_arguments, describe
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import (
    GRAY,
    INK,
    LABEL,
    PLOT_WIDTH,
    SCALE,
    SECTION,
    base,
    mark_sections,
    plural,
    require_tokens,
    some_labels,
    title_below,
    to_array,
    to_percent,
    token_axis,
)
from oss_lab.record.token_labels import TokenLabel

ROW = 15  # pixels
MOST = 3  # keys of a panel that are named because they get the most attention
NAME = 18  # pixels of the line with a head's name
HIDDEN = "rgb(190, 190, 190)"
NOTICED = 0.01  # the smallest share that the sentence counts as attending to a key


@dataclass(frozen=True)
class Head:
    """The part of one head that is drawn: rows are queries `first`, `first` + 1, ..."""

    layer: int
    number: int
    window: int | None
    first: int
    pattern: NDArray[np.float64]  # row key
    sink: NDArray[np.float64]  # row

    @property
    def name(self) -> str:
        kind = "full" if self.window is None else f"sliding, {self.window} keys"
        return f"layer {self.layer}, head {self.number} ({kind})"


@check_arguments
def attention(
    pattern: Any,
    sink_mass: Any,
    tokens: Sequence[TokenLabel],
    config: ModelConfig,
    *,
    heads: Sequence[tuple[int, int]],
    queries: slice = slice(None),
    marked: Sequence[int] = (),
) -> Figure:
    """The attention of some heads, side by side.

    Args:
        pattern: [layer head seq key] as traced at `attn.pattern` over a whole sequence.
        sink_mass: [layer head seq] as traced at `attn.sink_mass`.
        tokens: [seq] labels.
        heads: (layer, head) of each panel.
        queries: consecutive positions to show as rows; columns are all tokens up to the last one.
        marked: positions of keys whose tokens are named below the panels whatever they get.
    """
    if not len(heads):
        raise LabError("heads is empty; name at least one (layer, head)")
    for layer, head in heads:
        check_index("layer", layer, config.num_hidden_layers)
        check_index("head", head, config.num_attention_heads)
    require_tokens(len(select_head(sink_mass, *heads[0], "seq")), tokens)
    first, end, _ = queries.indices(len(tokens))
    if first >= end:
        raise LabError(f"queries selects no token; choose some from 0 to {len(tokens) - 1}")
    for key in marked:
        check_index("marked", key, end)
    panels = [
        Head(
            layer,
            head,
            config.window(layer),
            first,
            select_head(pattern, layer, head, "seq", "key")[first:end, :end],
            select_head(sink_mass, layer, head, "seq")[first:end],
        )
        for layer, head in heads
    ]
    figure = go.Figure()
    for place, head in enumerate(panels):
        _draw(figure, head, tokens[:end], place, len(panels), marked)
    rows = end - first
    subtitle = "each row sums to 100 % with its sink; striped = not visible to the query"
    base(
        figure,
        "Which tokens a head attends to, and how much its sink takes",
        subtitle,
        160 + ROW * rows,
        above=NAME + 2 * SECTION,
    )
    rows_axis = token_axis(tokens[first:end], title_text="attending token (query)")
    figure.update_yaxes(rows_axis, range=[rows - 0.5, -0.5])
    strongest = max(max(head.pattern.max(), head.sink.max()) for head in panels)
    bar = {"title": {"text": "attention, %", "side": "right"}, "thickness": 12}
    figure.update_layout(
        coloraxis={"colorscale": SCALE, "cmin": 0, "cmax": 100 * strongest or 100, "colorbar": bar},
        showlegend=False,
    )
    sentence = "; ".join(map(_sentence, panels)) + "."
    return Figure(figure, sentence[0].upper() + sentence[1:])


def select_head(data: Any, layer: int, head: int, *axes: str) -> NDArray[np.float64]:
    """One head's numbers. The other heads are not converted, since the data may be large."""
    try:
        of_head = data.sel(layer=layer, head=head) if hasattr(data, "dims") else data[layer][head]
    except (KeyError, IndexError, TypeError):
        raise LabError(
            f"expected numbers [layer head {' '.join(axes)}] with layer {layer} and head {head},"
            f" got {describe(data)}"
        ) from None
    return to_array(of_head, *axes)


def _draw(
    figure: go.Figure,
    head: Head,
    tokens: Sequence[TokenLabel],
    place: int,
    of: int,
    marked: Sequence[int],
) -> None:
    """Draw one panel: sink and keys have separate x axes and share the figure's y axis."""
    sink, keys, below = (str(3 * place + n) for n in (1, 2, 3))
    sink = "" if place == 0 else sink
    left, width = place / of, 0.96 / of
    figure.add_heatmap(
        z=to_percent(head.sink)[:, None],
        xaxis=f"x{sink}",
        coloraxis="coloraxis",
        hovertemplate="%{y} → sink: %{z} %<extra></extra>",
    )
    rows, seq = head.pattern.shape
    unseen = 0 if head.window is None else max(0, head.first - head.window + 1)
    figure.add_heatmap(
        z=to_percent(head.pattern[:, unseen:]),
        x0=unseen,
        dx=1,
        xaxis=f"x{keys}",
        coloraxis="coloraxis",
        hovertemplate="%{y} → %{x}: %{z} %<extra></extra>",
    )
    last = np.arange(head.first, head.first + rows)
    _stripe(figure, last + 0.5, seq - 0.5, f"x{below}")
    if head.window is not None:
        _stripe(figure, np.maximum(last - head.window + 0.5, -0.5), -0.5, f"x{below}")
    sink_axis = {"tickvals": [0], "ticktext": ["<b>sink</b>"], "tickangle": -90, "ticks": ""}
    pixels = 0.92 * width * PLOT_WIDTH
    most, named = _choose_keys(head, seq, ceil(LABEL * seq / pixels), marked)
    title = title_below("attended token (key)")
    full = token_axis(tokens, title=title, tickangle=-90)
    full["ticktext"] = [
        f"<b>{text}</b>" if n in most else text for n, text in enumerate(full["ticktext"])
    ]
    span = {"domain": [left + 0.08 * width, left + width], "range": [-0.5, seq - 0.5]}
    figure.update_layout(
        {
            f"xaxis{sink}": sink_axis | {"domain": [left, left + 0.05 * width]},
            f"xaxis{keys}": token_axis(tokens, showticklabels=False) | span,
            f"xaxis{below}": full | some_labels(full, named, f"x{keys}") | span,
        }
    )
    mark_sections(figure, tokens, f"x{keys}", pixels)
    figure.add_annotation(
        text=head.name,
        x=left,
        xref="paper",
        xanchor="left",
        y=1,
        yref="paper",
        yanchor="bottom",
        yshift=2 * SECTION,
        showarrow=False,
        font={"size": 13},
    )


def _choose_keys(
    head: Head, seq: int, apart: int, marked: Sequence[int]
) -> tuple[set[int], list[int]]:
    """(keys in bold, keys to name), the latter at least `apart` columns from each other.

    First `marked`, then the keys with the most attention, then others from left to right.
    """
    mean = head.pattern.mean(axis=0)
    most = [int(key) for key in np.argsort(-mean, kind="stable")[:MOST] if mean[key] >= NOTICED]
    named = list[int]()
    for key in (*marked, *most, *range(seq)):
        if all(abs(key - other) >= apart for other in named):
            named.append(key)
    return {*marked, *most}, named


def _stripe(figure: go.Figure, edge: NDArray[np.float64], side: float, xaxis: str) -> None:
    """Stripe each row from `edge` to the plot's `side`; steps are between the rows."""
    rows = np.arange(-1, len(edge) + 1)
    figure.add_scatter(
        x=np.concatenate((edge[:1], edge, edge[-1:], [side, side])).astype(np.float32),
        y=np.concatenate((rows, [len(edge), -1])).astype(np.int16),
        xaxis=xaxis,
        mode="lines",
        line={"width": 1, "shape": "vhv", "color": INK},
        fill="toself",
        fillcolor=HIDDEN,
        fillpattern={"shape": "-", "fillmode": "overlay", "fgcolor": GRAY, "size": 6},
        hoverinfo="skip",
    )


def _sentence(head: Head) -> str:
    rows, keys = np.nonzero(head.pattern >= NOTICED)
    sink = f"{head.name}: the sink takes {head.sink.mean():.0%} of the attention on average, and"
    if not len(rows):
        return f"{sink} no token gets {NOTICED:.0%} or more"
    back = int((rows + head.first - keys).max())
    return (
        f"{sink} the farthest token that gets at least {NOTICED:.0%} is"
        f" {plural(back, 'position')} back"
    )

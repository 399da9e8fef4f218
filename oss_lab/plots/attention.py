"""Where a head looks: one row a token that is being read, one column a token that it looks at.

Each head has two parts: a column for its sink, the share that goes to no token at all, and the
pattern over the keys. Striped is what the row cannot see: later tokens and, on a sliding layer,
tokens beyond the window. Sink and pattern of a row sum to 100 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from oss_lab.config import ModelConfig
from oss_lab.errors import LabError
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import (
    GRAY,
    SCALE,
    base,
    mark_sections,
    numbers,
    percent,
    require_tokens,
    token_axis,
)
from oss_lab.record.token_labels import TokenLabel

ROW = 12  # pixels
HIDDEN = "rgb(190, 190, 190)"
NOTICED = 0.01  # the smallest share that the sentence counts as looking at a key


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
        return f"layer {self.layer}, head {self.number}: {kind}"


def attention(
    pattern: Any,
    sink_mass: Any,
    tokens: Sequence[TokenLabel],
    config: ModelConfig,
    *,
    heads: Sequence[tuple[int, int]],
    queries: slice = slice(None),
) -> Figure:
    """Heads side by side.

    Args:
        pattern: [layer head seq key] as traced at `attn.pattern` over a whole sequence.
        sink_mass: [layer head seq] as traced at `attn.sink_mass`.
        tokens: [seq] labels.
        heads: (layer, head) of each panel.
        queries: neighboring positions that get a row each; columns are all tokens up to the last.
    """
    require_tokens(axis_length(sink_mass, "seq"), tokens)
    first, end, _ = queries.indices(len(tokens))
    if not heads or first >= end:
        raise LabError(f"name at least one head and some queries from 0 to {len(tokens) - 1}")
    panels = [
        Head(
            layer,
            head,
            config.window(layer),
            first,
            of_head(pattern, layer, head, "seq", "key")[first:end, :end],
            of_head(sink_mass, layer, head, "seq")[first:end],
        )
        for layer, head in heads
    ]
    figure = go.Figure()
    for place, head in enumerate(panels):
        _draw(figure, head, tokens[:end], place, len(panels))
    rows = end - first
    subtitle = "each row sums to 100 % with its sink; striped = out of sight"
    base(figure, "Where a head looks, and how much its sink takes", subtitle, 195 + ROW * rows)
    rows_axis = token_axis(tokens[first:end], title="token that looks (query)")
    figure.update_yaxes(rows_axis, range=[rows - 0.5, -0.5], tickfont_size=9)
    strongest = max(max(head.pattern.max(), head.sink.max()) for head in panels)
    bar = {"title": {"text": "attention, %", "side": "right"}, "thickness": 12}
    figure.update_layout(
        coloraxis={"colorscale": SCALE, "cmin": 0, "cmax": 100 * strongest, "colorbar": bar},
        margin_t=130,
        showlegend=False,
    )
    return Figure(figure, "; ".join(map(_told, panels)) + ".")


def of_head(data: Any, layer: int, head: int, *axes: str) -> NDArray[np.float64]:
    """One head's numbers; the rest, which may be large, is not converted."""
    named = hasattr(data, "dims")
    return numbers(data.sel(layer=layer, head=head) if named else data[layer][head], *axes)


def axis_length(data: Any, axis: str) -> int:
    """Of an axis with a name, or of the last."""
    return data.sizes[axis] if hasattr(data, "dims") else len(data[0][0])


def _draw(figure: go.Figure, head: Head, tokens: Sequence[TokenLabel], place: int, of: int) -> None:
    """One panel: sink and keys have x axes of their own and share the figure's y axis."""
    sink, keys = "" if place == 0 else f"{2 * place + 1}", f"{2 * place + 2}"
    left, width = place / of, 0.96 / of
    figure.add_heatmap(
        z=percent(head.sink)[:, None],
        xaxis=f"x{sink}",
        coloraxis="coloraxis",
        hovertemplate="%{y} → sink: %{z} %<extra></extra>",
    )
    rows, seq = head.pattern.shape
    unseen = 0 if head.window is None else max(0, head.first - head.window + 1)
    figure.add_heatmap(
        z=percent(head.pattern[:, unseen:]),
        x0=unseen,
        dx=1,
        xaxis=f"x{keys}",
        coloraxis="coloraxis",
        hovertemplate="%{y} → %{x}: %{z} %<extra></extra>",
    )
    last = np.arange(head.first, head.first + rows)
    _stripe(figure, last + 0.5, seq - 0.5, f"x{keys}")
    if head.window is not None:
        _stripe(figure, np.maximum(last - head.window + 0.5, -0.5), -0.5, f"x{keys}")
    sink_axis = {"tickvals": [0], "ticktext": ["sink"], "showgrid": False, "ticks": ""}
    key_axis = token_axis(tokens, title="token looked at (key)", showticklabels=False)
    figure.update_layout(
        {
            f"xaxis{sink}": sink_axis | {"domain": [left, left + 0.05 * width]},
            f"xaxis{keys}": key_axis
            | {"domain": [left + 0.08 * width, left + width], "range": [-0.5, seq - 0.5]},
        }
    )
    mark_sections(figure, tokens, f"x{keys}")
    figure.add_annotation(
        text=head.name,
        x=left,
        xref="paper",
        xanchor="left",
        y=1,
        yref="paper",
        yanchor="bottom",
        yshift=16,
        showarrow=False,
        font={"size": 13},
    )


def _stripe(figure: go.Figure, edge: NDArray[np.float64], side: float, xaxis: str) -> None:
    """Stripe, row by row, from `edge` to the plot's `side`; steps lie between the rows."""
    rows = np.arange(-1, len(edge) + 1)
    figure.add_scatter(
        x=np.concatenate((edge[:1], edge, edge[-1:], [side, side])).astype(np.float32),
        y=np.concatenate((rows, [len(edge), -1])).astype(np.int16),
        xaxis=xaxis,
        mode="lines",
        line={"width": 0, "shape": "vhv"},
        fill="toself",
        fillcolor=HIDDEN,
        fillpattern={"shape": "-", "fillmode": "overlay", "fgcolor": GRAY, "size": 6},
        hoverinfo="skip",
    )


def _told(head: Head) -> str:
    rows, keys = np.nonzero(head.pattern >= NOTICED)
    back = int((rows + head.first - keys).max()) if len(rows) else 0
    return (
        f"{head.name}: the sink takes {head.sink.mean():.0%} on average, and the farthest token"
        f" given at least {NOTICED:.0%} is {back} back"
    )

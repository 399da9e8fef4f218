"""The router's choices: which experts each token uses in every layer.

A layer is a band with one row per slot, slot 0 (the first choice) on top; a column is a token. The
number in a cell is the expert, its color the weight of the expert's output. Experts with the same
number in different layers are unrelated.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.cells import UNREADABLE, add_cells
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import (
    GRAY,
    SCALE,
    SECTION,
    base,
    mark_sections,
    name_columns,
    ordinal,
    plural,
    require_tokens,
    to_array,
    to_percent,
)
from oss_lab.record.token_labels import TokenLabel

ROW = 17  # pixels


@check_arguments
def expert_map(expert_ids: Any, expert_weights: Any, tokens: Sequence[TokenLabel]) -> Figure:
    """Layer x token map of all choices.

    Args:
        expert_ids, expert_weights: [layer seq slot], largest weight first, as traced at
            `moe.expert_ids` and `moe.expert_weights`.
        tokens: [seq] labels.
    """
    axes = ("layer", "seq", "slot")
    ids = to_array(expert_ids, *axes).astype(np.int64)
    weights = to_array(expert_weights, *axes)
    layers, seq, slots = ids.shape
    require_tokens(seq, tokens)
    if weights.shape != ids.shape:
        raise LabError(
            f"the expert ids are {list(ids.shape)} and the weights {list(weights.shape)}; trace"
            " both over the same tokens"
        )
    rows = layers * slots
    numbers = ids.astype(np.uint8).transpose(0, 2, 1).reshape(rows, seq)
    heat = go.Heatmap(
        z=to_percent(weights).transpose(0, 2, 1).reshape(rows, seq),
        text=numbers,
        colorscale=SCALE,
        zmin=0,
        zmax=100,
        xgap=1,
        colorbar={"title": {"text": "weight, %", "side": "right"}, "thickness": 12},
        hovertemplate="%{x}, layer %{y} choice: expert %{text}, weight %{z} %<extra></extra>",
    )
    figure = go.Figure()
    readable = add_cells(figure, heat, numbers)
    for layer in range(1, layers):
        figure.add_hline(layer * slots - 0.5, line={"color": GRAY, "width": 2})
    mark_sections(figure, tokens)
    choice = [f"{layer} · {ordinal(slot + 1)}" for layer in range(layers) for slot in range(slots)]
    title = "Which experts each token uses"
    subtitle = "number = expert, color = its weight"
    if not readable:
        subtitle = f"color = the expert's weight{UNREADABLE}"
    base(figure, title, subtitle, 165 + ROW * rows, above=2 * SECTION)
    name_columns(figure, tokens)
    figure.update_yaxes(
        title_text="layer · choice",
        tickmode="array",
        tickvals=list(range(rows)),
        ticktext=choice,
        tickfont={"size": 11},
        showgrid=False,
    )
    return Figure(figure, _sentence(ids, weights))


def _sentence(ids: np.ndarray, weights: np.ndarray) -> str:
    layers, seq, slots = ids.shape
    first = weights[:, :, 0].mean()
    used = [len(np.unique(layer)) for layer in ids]
    choices = plural(seq * slots, "choice")
    use = (
        f"the layers use {', '.join(map(str, used))} different experts for {choices} each"
        if layers > 1
        else f"the layer uses {plural(used[0], 'different expert')} for {choices}"
    )
    return (
        f"{plural(seq, 'token')}, {plural(slots, 'expert')} in each of {plural(layers, 'layer')}:"
        f" the first choice has {first:.0%} of the weight on average, and {use}."
    )

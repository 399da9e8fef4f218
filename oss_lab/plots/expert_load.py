"""How evenly the experts are used: the share of tokens that chose each expert of each layer.

If all experts were used equally, each would get slots / experts of the tokens. A few tokens of one
question do not show what an expert specializes in.
"""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.cells import UNREADABLE, add_cells
from oss_lab.plots.figure import Figure
from oss_lab.plots.style import SCALE, base, plural, require_tokens, to_array, to_percent

ROW = 26  # pixels


@check_arguments
def expert_load(expert_ids: Any, *, experts: int) -> Figure:
    """Layer x expert map of the share of tokens that chose it; `expert_ids` [layer seq slot]."""
    ids = to_array(expert_ids, "layer", "seq", "slot").astype(np.int64)
    layers, seq, slots = ids.shape
    require_tokens(seq)
    if not 0 <= ids.min() <= ids.max() < experts:
        raise LabError(
            f"the expert ids are {ids.min()} to {ids.max()}; with experts={experts} they must be"
            f" 0 to {experts - 1}"
        )
    counts = np.stack([np.bincount(layer.ravel(), minlength=experts) for layer in ids])
    share = counts / seq
    percent = to_percent(share)
    heat = go.Heatmap(
        z=percent,
        colorscale=SCALE,
        zmin=0,
        zmax=int(percent.max()) or 1,
        xgap=1,
        ygap=2,
        colorbar={"title": {"text": "% of tokens", "side": "right"}, "thickness": 12},
        hovertemplate="layer %{y}, expert %{x}: %{z} % of tokens<extra></extra>",
    )
    figure = go.Figure()
    readable = add_cells(figure, heat, percent)
    even = f"share of tokens that chose it; {slots / experts:.1%} if all were used equally"
    if not readable:
        even += UNREADABLE
    base(figure, "How often each expert is used", even, 150 + ROW * layers)
    figure.update_xaxes(title="expert", dtick=1 if experts <= 32 else 8, showgrid=False)
    figure.update_yaxes(title_text="layer", dtick=1, showgrid=False)
    return Figure(figure, _sentence(counts, seq, slots))


def _sentence(counts: NDArray[np.int64], seq: int, slots: int) -> str:
    most, tokens = counts.max() / seq, plural(seq, "token")
    if counts.min() == counts.max():
        return f"Every expert of every layer is chosen by {most:.0%} of {tokens}."
    layer, expert = np.unravel_index(int(counts.argmax()), counts.shape)
    idle = int((counts == 0).sum())
    unused = f"{idle} of {counts.size} experts were not used" if idle else "every expert was used"
    return (
        f"The busiest expert is expert {expert} of layer {layer}, chosen by {most:.0%} of"
        f" {tokens} ({slots / counts.shape[1]:.1%} if all were used equally); {unused}."
    )

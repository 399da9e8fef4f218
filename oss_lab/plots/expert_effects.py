"""How each expert of one token changes the next token's prediction: ablated, and replaced.

The left map shows each expert ablated, the right map each expert replaced by the next best one. A
cell names the expert and the change of the target's log-probability. A negative change means that
the expert had raised it.
"""

from typing import TYPE_CHECKING

import numpy as np
import tiktoken
from plotly.subplots import make_subplots

from oss_lab.plots.figure import Figure
from oss_lab.plots.signed_map import ROW, format_signed, largest_absolute, signed_map
from oss_lab.plots.style import base, ordinal, to_array
from oss_lab.plots.tokens import make_visible, plotly_text
from oss_lab.record.token_labels import token_text

if TYPE_CHECKING:
    from oss_lab.analysis.counterfactual import Counterfactuals


def expert_effects(found: "Counterfactuals", encoding: tiktoken.Encoding) -> Figure:
    """Two layer x slot maps of the change of the target's log-probability, in nats."""
    without, instead = to_array(found.without), to_array(found.instead)
    ids, next_best = to_array(found.experts).astype(int), to_array(found.next_best).astype(int)
    layers, slots = without.shape
    limit = largest_absolute(without, instead)
    rows = [f"layer {layer}" for layer in range(layers)]
    ranks = [ordinal(slot + 1) for slot in range(slots)]
    ablated = [
        [f"{ids[n, s]}<br>{format_signed(without[n, s])}" for s in range(slots)]
        for n in range(layers)
    ]
    replaced = [
        [f"{ids[n, s]}→{next_best[n]}<br>{format_signed(instead[n, s])}" for s in range(slots)]
        for n in range(layers)
    ]
    titles = ("without the expert", "next best expert instead")
    figure = make_subplots(cols=2, shared_yaxes=True, subplot_titles=titles)
    shared = {"unit": "nats", "rows": rows, "columns": ranks}
    figure.add_trace(signed_map(without, limit, text=ablated, bar=False, **shared), 1, 1)
    figure.add_trace(signed_map(instead, limit, text=replaced, **shared), 1, 2)
    target = f"“{make_visible(token_text(encoding, found.target))}”"
    subtitle = (
        f"top: the expert; bottom: change of the log-probability of {plotly_text(target)}, in nats"
    )
    title = "How each expert changes the next token's log-probability"
    base(figure, title, subtitle, 190 + ROW * layers)
    figure.update_xaxes(title="choice", showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    layer, slot = np.unravel_index(int(without.argmin()), without.shape)
    return Figure(
        figure,
        f"The log-probability of {target} is {found.logprob:.2f} nats; it falls most, by"
        f" {-without[layer, slot]:.2f} nats, without expert {ids[layer, slot]} of layer {layer};"
        f" the mean change over all {without.size} experts is {without.mean():+.2f} nats.",
    )

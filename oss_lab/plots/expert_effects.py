"""What one token's experts did for the next token: each silenced, and each replaced, on a map.

Left without the expert, right with the next best in its place. A cell names the expert and by how
much the target's log-probability changes; where it falls, the expert was for the target.
"""

from typing import TYPE_CHECKING

import numpy as np
import tiktoken
from plotly.subplots import make_subplots

from oss_lab.plots.figure import Figure
from oss_lab.plots.signed_map import ROW, largest, signed, signed_map
from oss_lab.plots.style import base, numbers, ordinal
from oss_lab.plots.tokens import plotly_text, visible
from oss_lab.record.token_labels import token_text

if TYPE_CHECKING:
    from oss_lab.analysis.counterfactual import Counterfactuals


def expert_effects(found: "Counterfactuals", encoding: tiktoken.Encoding) -> Figure:
    """Two layer x rank maps of the change of the target's log-probability, in nats."""
    without, instead = numbers(found.without), numbers(found.instead)
    ids, next_best = numbers(found.experts).astype(int), numbers(found.next_best).astype(int)
    layers, slots = without.shape
    limit = largest(without, instead)
    rows = [f"layer {layer}" for layer in range(layers)]
    ranks = [ordinal(slot + 1) for slot in range(slots)]
    silenced = [
        [f"{ids[n, s]}<br>{signed(without[n, s])}" for s in range(slots)] for n in range(layers)
    ]
    replaced = [
        [f"{ids[n, s]}→{next_best[n]}<br>{signed(instead[n, s])}" for s in range(slots)]
        for n in range(layers)
    ]
    titles = ("without the expert", "the next best instead")
    figure = make_subplots(cols=2, shared_yaxes=True, subplot_titles=titles)
    shared = {"unit": "nats", "rows": rows, "columns": ranks}
    figure.add_trace(signed_map(without, limit, text=silenced, bar=False, **shared), 1, 1)
    figure.add_trace(signed_map(instead, limit, text=replaced, **shared), 1, 2)
    target = f"“{visible(token_text(encoding, found.target))}”"
    subtitle = (
        f"above: the expert; below: change of the log-probability of {plotly_text(target)}, in nats"
    )
    title = "What the next token owes to each expert"
    base(figure, title, subtitle, 190 + ROW * layers)
    figure.update_xaxes(title="choice", showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    layer, slot = np.unravel_index(int(without.argmin()), without.shape)
    return Figure(
        figure,
        f"The token {target} has log-probability {found.logprob:.2f}; it falls most, by"
        f" {-without[layer, slot]:.2f} nats, without expert {ids[layer, slot]} of layer {layer};"
        f" the mean change over all {without.size} is {without.mean():+.2f}.",
    )

"""How each expert of one token changes the next token's prediction: ablated, and replaced.

The left map shows each expert ablated, the right map each expert replaced by the next best one. A
cell names the expert and the change of the target's log-probability. A negative change means that
the expert had raised it.
"""

from typing import TYPE_CHECKING

import numpy as np
import tiktoken
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.figure import Figure
from oss_lab.plots.signed_map import PANEL, ROW, SHARE, add_signed_map, choose_scale, format_signed
from oss_lab.plots.style import PLOT_WIDTH, base, ordinal, to_array
from oss_lab.plots.tokens import make_visible, plotly_text
from oss_lab.record.token_labels import token_text

if TYPE_CHECKING:
    from oss_lab.analysis.counterfactual import Counterfactuals

SMALLEST = 0.005  # nats; a smaller change rounds to zero


@check_arguments
def expert_effects(found: "Counterfactuals", encoding: tiktoken.Encoding) -> Figure:
    """Two layer x slot maps of the change of the target's log-probability, in nats."""
    without, instead = to_array(found.without), to_array(found.instead)
    ids, next_best = to_array(found.experts).astype(int), to_array(found.next_best).astype(int)
    layers, slots = without.shape
    scale = choose_scale(without, instead)
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
    for col, (part, text) in enumerate(((without, ablated), (instead, replaced)), 1):
        add_signed_map(
            figure,
            part,
            scale,
            text=text,
            bar=col == 2,
            width=SHARE * PLOT_WIDTH / 2,
            col=col,
            **shared,
        )
    target = f"“{make_visible(token_text(encoding, found.target))}”"
    subtitle = (
        f"top: the expert; bottom: change of the log-probability of {plotly_text(target)}, in nats"
    )
    title = "How each expert changes the next token's log-probability"
    base(figure, title, subtitle, 170 + ROW * layers, above=PANEL)
    figure.update_annotations(font_size=13)
    figure.update_xaxes(title="choice", showgrid=False)
    figure.update_yaxes(showgrid=False)
    return Figure(
        figure,
        f"The log-probability of {target} is {found.logprob:z.2f} nats;"
        f" {describe_lowest(without, ids)}; the mean change over all {without.size} experts is"
        f" {without.mean():+z.2f} nats.",
    )


def describe_lowest(without: NDArray[np.float64], ids: NDArray[np.int64]) -> str:
    """Where the log-probability falls most; if it never falls, where it rises least."""
    layer, slot = np.unravel_index(int(without.argmin()), without.shape)
    lowest, where = without[layer, slot], f"without expert {ids[layer, slot]} of layer {layer}"
    if without.max() - lowest < SMALLEST:
        return f"it changes by {lowest:+z.2f} nats without any of the experts"
    if lowest <= -SMALLEST:
        return f"it falls most, by {-lowest:.2f} nats, {where}"
    if lowest < SMALLEST:
        return f"it does not fall without any of the experts, and changes least {where}"
    return f"it rises without each of the experts, least, by {lowest:.2f} nats, {where}"

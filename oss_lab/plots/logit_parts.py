"""What a logit is made of: the direct part of each head and each expert slot, on a map."""

from typing import TYPE_CHECKING

import numpy as np
import tiktoken
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.cells import UNREADABLE
from oss_lab.plots.figure import Figure
from oss_lab.plots.signed_map import PANEL, ROW, SHARE, add_signed_map, choose_scale
from oss_lab.plots.style import PLOT_WIDTH, base, ordinal, to_array
from oss_lab.plots.tokens import make_visible, plotly_text
from oss_lab.record.token_labels import token_text

if TYPE_CHECKING:
    from oss_lab.analysis.attribution import Attribution


@check_arguments
def logit_parts(found: "Attribution", encoding: tiktoken.Encoding) -> Figure:
    """A layer x head map and a layer x slot map of the logit's parts, on one scale."""
    heads, slots = to_array(found.heads), to_array(found.slots)
    scale = choose_scale(heads, slots)
    rows = [f"layer {layer}" for layer in range(len(heads))]
    widths = [heads.shape[1], slots.shape[1]]
    titles = ("attention heads", "expert choices")
    figure = make_subplots(cols=2, shared_yaxes=True, column_widths=widths, subplot_titles=titles)
    names = [str(head) for head in range(heads.shape[1])]
    ranks = [ordinal(slot + 1) for slot in range(slots.shape[1])]
    shared = {"unit": "logit", "rows": rows}
    readable = True
    for col, (part, columns) in enumerate(((heads, names), (slots, ranks)), 1):
        room = SHARE * PLOT_WIDTH * widths[col - 1] / sum(widths)
        readable &= add_signed_map(
            figure, part, scale, columns=columns, bar=col == 2, width=room, col=col, **shared
        )
    token = f"“{make_visible(token_text(encoding, found.token))}”"
    what = f"the logit of {token}"
    if found.against is not None:
        what += f" minus that of “{make_visible(token_text(encoding, found.against))}”"
    where = f"{what} after position {found.position}"
    subtitle = plotly_text(f"direct parts of {where}")
    if not readable:
        subtitle += UNREADABLE
    base(figure, "What a logit is made of", subtitle, 170 + ROW * len(heads), above=PANEL)
    figure.update_annotations(font_size=13)
    figure.update_xaxes(title="head", showgrid=False, dtick=1 if readable else None, col=1)
    figure.update_xaxes(title="choice", showgrid=False, col=2)
    figure.update_yaxes(showgrid=False)
    return Figure(
        figure,
        f"{what[0].upper()}{what[1:]} is {found.logit:.2f}: {found.embedding:+.2f} from the"
        f" embedding, {heads.sum():+.2f} from the heads, {to_array(found.bias).sum():+.2f} from the"
        f" attention biases and {slots.sum():+.2f} from the experts; the largest parts are"
        f" {name_largest(heads, 'head')} and {name_largest(slots, 'choice')}.",
    )


def name_largest(parts: NDArray[np.float64], what: str) -> str:
    """The part with the largest absolute value, with its name."""
    if not parts.any():
        return f"no {what} (all are 0)"
    layer, n = np.unravel_index(int(np.abs(parts).argmax()), parts.shape)
    name = f"head {n}" if what == "head" else f"the {ordinal(int(n) + 1)} choice"
    return f"{name} of layer {layer} ({parts[layer, n]:+.2f})"

"""A patching sweep as a map: how much of the clean prediction each patched value restores."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import plotly.graph_objects as go
import tiktoken

from oss_lab.errors import LabError
from oss_lab.hooks.arguments import check_arguments
from oss_lab.plots.cells import UNREADABLE
from oss_lab.plots.figure import Figure
from oss_lab.plots.signed_map import ROW, add_signed_map, choose_scale
from oss_lab.plots.style import base, name_columns, to_array
from oss_lab.plots.tokens import make_visible, plotly_text
from oss_lab.record.token_labels import TokenLabel, token_text

if TYPE_CHECKING:
    from oss_lab.analysis.patching import Patching

AROUND = 3  # positions to show before the first that differs; every change there is 0


@check_arguments
def patching(
    found: "Patching",
    encoding: tiktoken.Encoding,
    tokens: Sequence[TokenLabel] | None = None,
) -> Figure:
    """Layer x site map of what is restored: 0 is the corrupted run, 1 the clean one.

    Args:
        tokens: labels of the corrupted sequence, to name columns that are positions.
    """
    restored = to_array(found.restored)
    if found.axis == "position" and (tokens is None or len(tokens) != restored.shape[1]):
        raise LabError("pass the labels of the corrupted sequence, one for each position")
    first = max(0, found.first - AROUND) if found.axis == "position" else 0
    shown = restored[:, first:]
    rows = [f"layer {layer}" for layer in range(len(shown))]
    columns = None if tokens else [str(first + n) for n in range(shown.shape[1])]
    figure = go.Figure()
    readable = add_signed_map(
        figure,
        shown,
        choose_scale(shown, least=1.0),
        unit="share restored",
        rows=rows,
        columns=columns,
    )
    target, against = (
        f"“{make_visible(token_text(encoding, id))}”" for id in (found.target, found.against)
    )
    subtitle = plotly_text(
        f"logit of {target} minus {against}: 0 is the corrupted run, 1 the clean run"
    )
    if not readable:
        subtitle += UNREADABLE
    title = f"How much of the clean prediction {found.point} restores"
    base(figure, title, subtitle, 170 + ROW * len(shown))
    if tokens is None:
        figure.update_xaxes(title=found.axis, showgrid=False)
    else:
        name_columns(figure, tokens[first:])
    figure.update_yaxes(showgrid=False)
    best = [
        f"{name_site(found, tokens, first + int(row.argmax()))} ({row.max():.0%})"
        if row.max() > 0
        else "no site"
        for row in shown
    ]
    return Figure(
        figure,
        f"The clean run leads to {target} and the corrupted one to {against}; layer by layer,"
        f" patching {found.point} restores most at {', '.join(best)}; on average a patch restores"
        f" {shown.mean():.0%} of the difference.",
    )


def name_site(found: "Patching", tokens: Sequence[TokenLabel] | None, site: int) -> str:
    """The name of a head, or a position with its token."""
    if tokens is None:
        return f"{found.axis} {site}"
    return f"{site} “{make_visible(tokens[site].text)}”"

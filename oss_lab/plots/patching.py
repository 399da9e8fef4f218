"""A patching sweep as a map: how much of the clean prediction each patched value brings back."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
import tiktoken

from oss_lab.errors import LabError
from oss_lab.plots.figure import Figure
from oss_lab.plots.signed_map import ROW, signed_map
from oss_lab.plots.style import base, numbers, token_axis
from oss_lab.plots.tokens import plotly_text, visible
from oss_lab.record.token_labels import TokenLabel, token_text

if TYPE_CHECKING:
    from oss_lab.analysis.patching import Patching

AROUND = 3  # positions before the first that differs, where every change is 0


def patching(
    found: "Patching",
    encoding: tiktoken.Encoding,
    tokens: Sequence[TokenLabel] | None = None,
) -> Figure:
    """Layer x site map of what is restored: 0 is the corrupted run, 1 the clean one.

    Args:
        tokens: labels of the corrupted sequence; name the columns where those are positions.
    """
    restored = numbers(found.restored)
    if found.axis == "position" and (tokens is None or len(tokens) != restored.shape[1]):
        raise LabError("give the labels of the corrupted sequence, one for each position")
    first = max(0, found.first - AROUND) if found.axis == "position" else 0
    shown = restored[:, first:]
    rows = [f"layer {layer}" for layer in range(len(shown))]
    columns = None if tokens else [str(first + n) for n in range(shown.shape[1])]
    limit = max(1.0, float(np.abs(shown).max()))
    figure = go.Figure(signed_map(shown, limit, unit="share restored", rows=rows, columns=columns))
    target, against = (
        f"“{visible(token_text(encoding, id))}”" for id in (found.target, found.against)
    )
    subtitle = plotly_text(f"logit of {target} over {against}: 0 as corrupted, 1 as clean")
    title = f"What {found.point} of the clean run brings back"
    base(figure, title, subtitle, 190 + ROW * len(shown))
    if tokens is None:
        figure.update_xaxes(title=found.axis, showgrid=False)
    else:
        upright = max(len(visible(token.text)) for token in tokens[first:]) <= 2
        angle = 0 if upright else -90
        figure.update_xaxes(token_axis(tokens[first:], title="token", tickangle=angle))
    figure.update_yaxes(autorange="reversed", showgrid=False)
    best = [f"{named(found, tokens, first + int(row.argmax()))} ({row.max():.0%})" for row in shown]
    return Figure(
        figure,
        f"The clean run leads to {target} and the corrupted one to {against}; by layer, most of the"
        f" difference comes back with {found.point} at {', '.join(best)}; a patch brings back"
        f" {shown.mean():.0%} on average.",
    )


def named(found: "Patching", tokens: Sequence[TokenLabel] | None, site: int) -> str:
    """A head, or a position with its token."""
    if tokens is None:
        return f"{found.axis} {site}"
    return f"{site} “{visible(tokens[site].text)}”"

"""Maps of signed numbers, cell by cell: what they share in colour, text and axes.

Colours run from orange (negative) over pale to purple (positive), which colour-blind readers can
tell apart; the number stands in the cell.
"""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from oss_lab.plots.tokens import plotly_text

SIGNED = "PuOr"
ROW = 34  # pixels
SHOWN_CELLS = 200  # a map with more has no room for numbers


def signed_map(
    values: NDArray[np.float64],
    limit: float,
    *,
    unit: str,
    rows: Sequence[str],
    columns: Sequence[str],
    text: Sequence[Sequence[str]] | None = None,
    bar: bool = True,
) -> go.Heatmap:
    """A heat map of `values` [row column], pale at zero and darkest at plus and minus `limit`.

    Args:
        text: of each cell; by default the number with two digits behind the point.
    """
    if text is None:
        numbers = [[f"{value:+.2f}" for value in row] for row in values]
        text = numbers if values.size <= SHOWN_CELLS else None
    return go.Heatmap(
        z=values.astype(np.float16),
        x=[plotly_text(column) for column in columns],
        y=[plotly_text(row) for row in rows],
        text=text,
        texttemplate="%{text}" if text else None,
        textfont={"size": 10},
        colorscale=SIGNED,
        zmin=-limit,
        zmax=limit,
        xgap=1,
        ygap=1,
        showscale=bar,
        colorbar={"title": {"text": unit, "side": "right"}, "thickness": 12},
        hovertemplate=f"%{{y}}, %{{x}}: %{{z:.3f}} {unit}<extra></extra>",
    )


def largest(*parts: NDArray[np.float64]) -> float:
    """The largest size of any number, for one scale over several maps."""
    return max(float(np.abs(part).max()) for part in parts) or 1.0

"""Maps of signed numbers: the colors, text and axes that they share.

Colors go from orange (negative) over pale to purple (positive), which color-blind readers can
distinguish. Each cell also shows its number.
"""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from oss_lab.plots.style import require_finite
from oss_lab.plots.tokens import plotly_text

SIGNED = "PuOr"
ROW = 34  # pixels
WIDEST = 20  # columns; a wider map has no room for numbers


def signed_map(
    values: NDArray[np.float64],
    limit: float,
    *,
    unit: str,
    rows: Sequence[str],
    columns: Sequence[str] | None,
    text: Sequence[Sequence[str]] | None = None,
    bar: bool = True,
) -> go.Heatmap:
    """A heat map of `values` [row column], pale at zero and darkest at plus and minus `limit`.

    Args:
        columns: None numbers them, for an axis that sets its own labels.
        text: of each cell; by default its number, if there is room.
    """
    if text is None and values.shape[1] <= WIDEST:
        text = [[format_signed(value) for value in row] for row in values]
    return go.Heatmap(
        z=values.astype(np.float32).round(3),
        x=None if columns is None else [plotly_text(column) for column in columns],
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


def format_signed(value: float) -> str:
    """The number with its sign and two decimals; 0 if it rounds to zero."""
    text = f"{value:+.2f}"
    return "0" if text in ("+0.00", "-0.00") else text


def largest_absolute(*parts: NDArray[np.float64]) -> float:
    """The largest absolute value, for one scale over several maps."""
    for part in parts:
        require_finite(part)
    return max(float(np.abs(part).max()) for part in parts) or 1.0

"""Maps of signed numbers: the colors, text and axes that they share.

Colors go from orange (negative) over pale to purple (positive), which color-blind readers can
distinguish. Each cell also shows its number. The colors end early if a few values are much larger
than the others, because one such value would make all other cells pale; the numbers stay exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from oss_lab.plots.cells import add_cells
from oss_lab.plots.style import PLOT_WIDTH, require_finite
from oss_lab.plots.tokens import plotly_text

SIGNED = "PuOr"
ROW = 34  # pixels
PANEL = 20  # pixels for the names of two maps side by side
SHARE = 0.8  # of the plot's width that two maps side by side take
MOST = 0.95  # of the values have their color within the scale
FAINTEST = 0.1  # the least end of the scale, over the largest value: noise stays pale


@dataclass(frozen=True)
class Scale:
    """The colors of signed maps: from -limit to limit. `largest` is the largest
    absolute value."""

    limit: float
    largest: float

    def name(self, unit: str) -> str:
        """The unit, and where the colors end if that is before the largest value."""
        clipped = self.limit < self.largest
        return f"{unit}<br>colors end at ±{self.limit:.2g}" if clipped else unit


def add_signed_map(
    figure: go.Figure,
    values: NDArray[np.float64],
    scale: "Scale",
    *,
    unit: str,
    rows: Sequence[str],
    columns: Sequence[str] | None,
    text: Sequence[Sequence[str]] | None = None,
    bar: bool = True,
    width: float = PLOT_WIDTH,
    col: int | None = None,
) -> bool:
    """Add a heat map of `values` [row column], pale at zero and darkest at both ends of `scale`.

    Args:
        columns: None numbers them, for an axis that sets its own labels.
        text: of each cell; by default its number.
        width: of the map, in pixels.
        col: the subplot's column.

    Returns:
        Whether there is room for the text.
    """
    heat = go.Heatmap(
        z=values.astype(np.float32).round(3),
        x=None if columns is None else [plotly_text(column) for column in columns],
        y=[plotly_text(row) for row in rows],
        text=text,
        colorscale=SIGNED,
        zmin=-scale.limit,
        zmax=scale.limit,
        xgap=1,
        ygap=1,
        showscale=bar,
        colorbar={"title": {"text": scale.name(unit), "side": "right"}, "thickness": 12},
        hovertemplate=f"%{{y}}, %{{x}}: %{{z:.3f}} {unit}<extra></extra>",
    )
    shown = text or [[format_signed(value) for value in row] for row in values]
    return add_cells(figure, heat, np.array(shown, dtype=object), width=width, col=col)


def format_signed(value: float) -> str:
    """The number with its sign and two decimals; 0 if it rounds to zero."""
    text = f"{value:+.2f}"
    return "0" if text in ("+0.00", "-0.00") else text


def choose_scale(*parts: NDArray[np.float64], least: float = 0.0) -> Scale:
    """One scale over several maps: to the largest value, or less if it is far from the others.

    Args:
        least: the limit is at least this.
    """
    for part in parts:
        require_finite(part)
    sizes = np.abs(np.concatenate([part.ravel() for part in parts]))
    largest = float(sizes.max())
    usual = max(float(np.quantile(sizes, MOST)), FAINTEST * largest, least)
    return Scale(usual if largest > 2 * usual else max(largest, least) or 1.0, largest)

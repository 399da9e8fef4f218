"""Numbers and words in the cells of a heat map, in black or white ink.

Plotly itself chooses white or dark gray, which has a contrast of only 3 : 1 with middle tones.
Here each cell gets the ink with the higher contrast, which is at least 4.5 : 1 on every color.
"""

from html import unescape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.colors import validate_colors

from oss_lab.plots.style import PLOT_WIDTH

SIZE = 11  # pixels
SMALLEST = 10  # pixels; smaller text is not drawn
DIGIT, LETTER = 0.56, 0.61  # widths, over the size, in a proportional and a monospaced font
BLACK, WHITE = "#000000", "#ffffff"
UNREADABLE = "; .table() has the numbers"


def add_cells(
    figure: go.Figure,
    heat: go.Heatmap,
    text: NDArray[Any],
    *,
    width: float = PLOT_WIDTH,
    family: str | None = None,
    col: int | None = None,
) -> bool:
    """Add a heat map, row 0 on top, with `text` [row column] in its cells if that is readable.

    Args:
        heat: has `zmin` and `zmax`. Its x and y are names, or None for 0, 1, 2, ...
        width: of all cells together, in pixels.
        col: the subplot's column.

    Returns:
        Whether the cells are wide enough for their text; if they are not, it is left out.
    """
    place: dict[str, Any] = {} if col is None else {"row": 1, "col": col}
    figure.add_trace(heat, **place)
    rows, columns = text.shape
    figure.update_xaxes(range=[-0.5, columns - 0.5], **place)
    figure.update_yaxes(range=[rows - 0.5, -0.5], **place)
    size = fitting_size(text, width / columns, DIGIT if family is None else LETTER)
    if size is None:
        return False
    white = needs_white(heat)
    xs, ys = _names(heat["x"], columns), _names(heat["y"], rows)
    for color, cells in ((BLACK, ~white), (WHITE, white)):
        row, column = np.nonzero(cells)
        if len(row):
            figure.add_scatter(
                x=xs[column],
                y=ys[row],
                customdata=text[row, column],  # unlike `text`, it keeps small integers small
                texttemplate="%{customdata}",
                mode="text",
                textfont={"color": color, "size": size} | ({"family": family} if family else {}),
                hoverinfo="skip",
                showlegend=False,
                **place,
            )
    return True


def fitting_size(text: NDArray[Any], width: float, letter: float) -> int | None:
    """The largest font size up to SIZE at which every text is narrower than `width` pixels."""
    lines = (line for cell in map(str, text.ravel().tolist()) for line in cell.split("<br>"))
    longest = max(map(_count_letters, lines), default=0)
    sizes = range(SIZE, SMALLEST - 1, -1)
    return next((size for size in sizes if longest * letter * size + 1 <= width), None)


def needs_white(heat: Any) -> NDArray[np.bool_]:
    """[row column] of a heat map: whether white has a higher contrast with the cell than black."""
    stops, colors = zip(*heat["colorscale"], strict=True)
    parts = np.array(validate_colors(list(colors), "tuple")).T  # red, green and blue, 0 to 1
    share = (np.asarray(heat["z"], np.float64) - heat["zmin"]) / (heat["zmax"] - heat["zmin"])
    light = luminance(np.stack([np.interp(share, stops, part) for part in parts], axis=-1))
    return (1 + 0.05) / (light + 0.05) > (light + 0.05) / 0.05


def luminance(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """The relative luminance of WCAG, 0 for black to 1 for white, of colors [... 3] from 0 to 1.

    >>> float(luminance(np.array([1.0, 1.0, 1.0])).round(3))
    1.0
    """
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def _names(names: Any, count: int) -> NDArray[Any]:
    return (
        np.arange(count, dtype=np.uint8 if count <= 256 else np.int16)
        if names is None
        else np.asarray(names)
    )


def _count_letters(text: str) -> int:
    """Letters as drawn: an entity such as &lt; is one."""
    return len(unescape(text))

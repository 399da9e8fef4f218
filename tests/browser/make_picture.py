"""Take the README's picture of the tour: `make picture`. Not a test; pytest provides the browser.

On the left is the JupyterLab window at the section on effort; on the right are two cells, the
experts and the attention heads.
"""

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image
from test_notebooks import NOTEBOOKS

PICTURE = NOTEBOOKS / "images" / "tour.png"
HEADING = "2. Effort"
CELLS = ("plots.expert_map(", "plots.attention(")
COLORS = 128
GAP = 24  # pixels between the parts

pytestmark = pytest.mark.browser


def test_take_the_picture(open_notebook, notebook_folder: Path, run_all) -> None:
    shutil.copytree(NOTEBOOKS, notebook_folder)
    page = open_notebook(notebook_folder / "00_tour.ipynb")
    run_all(page)
    page.get_by_role("heading", name=HEADING).evaluate("e => e.scrollIntoView(true)")
    page.wait_for_timeout(3000)  # plotly draws a figure once it is visible
    window = Image.open(io.BytesIO(page.screenshot()))
    cells = []
    for code in CELLS:
        cell = page.locator(".jp-CodeCell").filter(has_text=code).first
        cell.scroll_into_view_if_needed()
        page.wait_for_timeout(3000)
        cells.append(Image.open(io.BytesIO(cell.screenshot())))
    place_side_by_side(window, stack(cells)).quantize(COLORS).save(PICTURE, optimize=True)


def stack(parts: list[Image.Image]) -> Image.Image:
    """Place the parts below each other."""
    width = max(part.width for part in parts)
    whole = Image.new("RGB", (width, sum(part.height + GAP for part in parts)), "white")
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height + GAP
    return whole


def place_side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """Place two parts next to each other, on white."""
    whole = Image.new(
        "RGB", (left.width + GAP + right.width, max(left.height, right.height)), "white"
    )
    whole.paste(left, (0, 0))
    whole.paste(right, (left.width + GAP, 0))
    return whole

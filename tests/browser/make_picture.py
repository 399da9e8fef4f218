"""Take the README's pictures: `make picture`. Not a test; pytest provides the browser.

Of the tour: on the left the JupyterLab window at the section on effort, on the right a live view of
the experts and a figure of two attention heads. Of the page: its lab in the light theme, beside its
first step in the dark theme on a phone.
"""

import io
import shutil
from pathlib import Path

import pytest
from oss_widgets import write_page
from PIL import Image
from test_notebooks import NOTEBOOKS

PICTURE = NOTEBOOKS / "images" / "tour.png"
HEADING = "2. Effort"
PAGE_PICTURE = NOTEBOOKS / "images" / "page.png"
CELLS = ("Experts(chat)", "plots.attention(")
COLORS = 128
GAP = 24  # pixels between the parts

pytestmark = pytest.mark.browser


def test_take_the_picture(open_notebook, notebook_folder: Path, run_all) -> None:
    shutil.copytree(NOTEBOOKS, notebook_folder)
    page = open_notebook(notebook_folder / "00_tour.ipynb")
    page.set_viewport_size({"width": 1400, "height": 1700})
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


def test_take_the_picture_of_the_page(chromium, tmp_path: Path) -> None:
    write_page(tmp_path / "nano.html")
    parts = []
    for width, height, theme in ((1200, 1150, "light"), (390, 1150, "dark")):
        page = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
        page.goto((tmp_path / "nano.html").as_uri())
        page.locator("textarea").first.fill("What is 347 * 62?")
        page.keyboard.press("Enter")
        page.wait_for_function("document.body.innerText.includes('21514')")
        if theme == "light":
            page.locator("button", has_text="Experts").first.click()
            page.locator(".oss-experts .oss-map").focus()
            for key in (*["ArrowRight"] * 75, "Enter"):
                page.keyboard.press(key)
            page.locator(".oss-experts").scroll_into_view_if_needed()
            page.locator(".oss-experts").evaluate("e => e.scrollIntoView(true)")
        page.wait_for_timeout(1500)
        parts.append(Image.open(io.BytesIO(page.screenshot())))
        page.close()
    place_side_by_side(*parts).quantize(COLORS).save(PAGE_PICTURE, optimize=True)


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

"""Open notebooks in JupyterLab and run them from top to bottom, as a person would.

The notebooks are those in `notebooks/`. They run as copies without stored outputs. A tiny notebook
written here checks that these tests detect errors.
"""

import json
import re
import shutil
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (extra `test`)")

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
PLOTLY = "application/vnd.plotly.v1+json"
FIGURE_LIMIT = 60_000
SHORTER = {"13_train.ipynb": (": (500,", ": (40,")}
"""What is replaced in the copy, to train in seconds."""
WIDGET = "application/vnd.jupyter.widget-view+json"

pytestmark = pytest.mark.browser


TINY = (
    "import oss_lab, oss_kernels, oss_widgets\nprint('first', 6 * 7)",
    "import plotly.graph_objects as go\ngo.Figure(go.Bar(y=[1, 3, 2]))",
    "import ipywidgets as w\n"
    "toggle, label = w.ToggleButtons(options=['low', 'high']), w.Label('at low')\n"
    "toggle.observe(lambda c: setattr(label, 'value', f'at {c.new}'), 'value')\n"
    "w.VBox([toggle, label])",
    f"display({{'{WIDGET}': {{'model_id': 'none such'}}}}, raw=True)",
    "w.Label('unseen', _view_name='NoneSuch')",
    "1 / 0",
)
"""A print, a figure and a toggle, as the real notebooks have them; two broken widgets, an error."""


def tiny_notebook(folder: Path) -> Path:
    folder.mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in TINY])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    path = folder / "tiny.ipynb"
    nbformat.write(notebook, path)
    return path


def bare_copy(name: str, folder: Path) -> tuple[Path, int]:
    """Write a copy without outputs, and count the plotly figures that the original stores.

    The copy has no assertions on outputs: nbval checks what a notebook claims.
    """
    shutil.copytree(NOTEBOOKS, folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    path = folder / name
    notebook = nbformat.read(path, as_version=4)
    figures = 0
    for cell in notebook.cells:
        if cell.cell_type == "code":
            figures += sum(PLOTLY in output.get("data", {}) for output in cell.outputs)
            cell.outputs, cell.execution_count = [], None
            cell.source = re.sub(r"(?m)^assert .*", "", cell.source)
    text, (long, short) = nbformat.writes(notebook), SHORTER.get(name, ("", ""))
    assert long in text
    path.write_text(text.replace(long, short) if long else text, encoding="utf-8")
    return path, figures


def wait_for_figures(page, count: int) -> None:
    """Wait until this many plotly figures are drawn, each taller than a line of text."""
    page.wait_for_function(
        """n => [...document.querySelectorAll('.jp-OutputArea .js-plotly-plot svg.main-svg')]
            .filter(svg => svg.getBoundingClientRect().height > 100)
            .map(svg => svg.closest('.js-plotly-plot'))
            .filter((plot, i, all) => all.indexOf(plot) === i).length >= n""",
        arg=count,
        timeout=FIGURE_LIMIT,
    )


def test_a_click_reaches_the_kernel_and_errors_are_detected(
    open_notebook, notebook_folder: Path, run_all, error_texts
) -> None:
    page = open_notebook(tiny_notebook(notebook_folder))
    config = page.evaluate("JSON.parse(document.getElementById('jupyter-config-data').textContent)")
    assert config["disabledExtensions"] == ["@jupyterlab/apputils-extension:announcements"]
    run_all(page)
    wait_for_figures(page, 1)
    outputs = page.locator(".jp-OutputArea-output")
    outputs.get_by_text("first 42", exact=True).wait_for()
    outputs.get_by_text("at low", exact=True).wait_for()
    outputs.get_by_role("button", name="high").click()
    outputs.get_by_text("at high", exact=True).wait_for()
    error, without_model, without_view = error_texts(page)
    assert "ZeroDivisionError" in error
    assert "Error displaying widget" in without_model
    assert "Click to show javascript error" in without_view


def list_notebooks() -> list[str]:
    """The notebooks with a view that no earlier one has; nbval runs all of them."""
    chosen, seen = [], set[str]()
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        imported = re.findall(r"from oss_widgets import ([\w, ]+)", path.read_text("utf-8"))
        views = {view for names in imported for view in names.split(", ")}
        if views - seen:
            chosen.append(path.name)
        seen |= views
    return chosen


@pytest.mark.parametrize("name", list_notebooks())
def test_run_all_shows_every_figure_and_no_error(
    name: str, open_notebook, notebook_folder: Path, run_all, error_texts
) -> None:
    path, figures = bare_copy(name, notebook_folder)
    cells = json.loads(path.read_text("utf-8"))["cells"]
    page = open_notebook(path)
    assert page.locator(".jp-CodeCell").count() == sum(c["cell_type"] == "code" for c in cells)
    run_all(page)
    assert error_texts(page) == []  # first: an error would make the wait for figures time out
    wait_for_figures(page, figures)
    assert error_texts(page) == []


def test_the_loss_curve_grows_while_the_model_trains(
    open_notebook, notebook_folder: Path, run_all
) -> None:
    """JupyterLab's plotly ignores updates of a figure, so the cell must draw a new one."""
    path, _ = bare_copy("13_train.ipynb", notebook_folder)
    notebook = nbformat.read(path, as_version=4)
    last = next(n for n, cell in enumerate(notebook.cells) if cell.source.startswith("train_steps"))
    del notebook.cells[last + 1 :]
    nbformat.write(notebook, path)
    page = open_notebook(path)
    page.evaluate(
        """() => {
            window.lengths = [];
            setInterval(() => {
                const plot = document.querySelector('.jp-OutputArea .js-plotly-plot');
                const length = plot?._fullData?.[0]?._length;
                if (length && length !== window.lengths.at(-1)) window.lengths.push(length);
            }, 50);
        }"""
    )
    run_all(page)
    wait_for_figures(page, 1)
    lengths = page.evaluate("window.lengths")
    assert lengths == sorted(lengths)
    assert len(lengths) >= 3
    assert lengths[-1] == 13

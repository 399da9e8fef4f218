"""Rules that every notebook must follow, checked without a kernel.

nbval passes a cell that stores nothing, so these rules require stored outputs to compare.
`complaints` is tested on a notebook that follows the rules and on one that breaks each rule.
"""

import ast
import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (extra `test`)")

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
FILE_LIMIT = 180 * 1024  # bytes
OUTPUT_LIMIT = 20 * 1024  # characters of one output, without pictures
CELL_LINES = 25
IMAGE = re.compile(r"!\[(?P<alt>[^\]]*)\]\((?P<target>[^)\s]+)[^)]*\)")
HTML_IMAGE = re.compile(r"<img\b[^>]*>")
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(?:home|root|Users|tmp|mnt)/|\b[A-Z]:\\\\")
PICTURES = ("image/png", "image/jpeg")
NOT_COMPARED = (*PICTURES, "image/svg+xml", "text/html", "application/vnd.plotly.v1+json")
UNCOMPARED_TAGS = {"nbval-ignore-output", "nbval-skip"}
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)"}


def tags(cell: Any) -> set[str]:
    return set(cell.metadata.get("tags", []))


def is_compared(cell: Any) -> bool:
    """Whether nbval, with the root conftest, compares an output that this cell stores."""
    if tags(cell) & UNCOMPARED_TAGS:
        return False
    return any(
        output.get("name") == "stdout" or set(output.get("data", {})) - set(NOT_COMPARED)
        for output in cell.outputs
    )


def is_definition(cell: Any) -> bool:
    """Whether the cell only imports and defines."""
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef)
    return all(isinstance(each, kinds) for each in ast.parse(cell.source).body)


def complaints(notebook: Any, folder: Path) -> Iterator[str]:
    """One sentence for each rule that the notebook breaks."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "its kernel is not python3"
    if "widgets" in notebook.metadata:
        yield "it stores widget state"
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        yield "its execution counts are not 1, 2, 3 ...: run it from top to bottom and save"
    # A sheet's stubs have no output, and each is followed by its check.
    counted = [c for c in code if not is_definition(c)] if folder.name == "exercises" else code
    if 10 * sum(map(is_compared, counted)) < 6 * len(counted):
        yield "fewer than 60 % of its code cells are compared"
    if 100 * sum(bool(tags(cell) & UNCOMPARED_TAGS) for cell in code) > 15 * len(code):
        yield "more than 15 % of its code cells are ignored or skipped"
    for number, cell in enumerate(notebook.cells, 1):
        for complaint in cell_complaints(cell, folder):
            yield f"cell {number}: {complaint}"


def cell_complaints(cell: Any, folder: Path) -> Iterator[str]:
    if cell.cell_type == "code":
        if not cell.source.strip():
            yield "it is empty"
        if len(cell.source.splitlines()) > CELL_LINES:
            yield f"it has more than {CELL_LINES} lines"
        for output in cell.outputs:
            yield from output_complaints(output, tags(cell))
    for match in IMAGE.finditer(cell.source if cell.cell_type == "markdown" else ""):
        if not match["alt"].strip():
            yield f"the image {match['target']} has no alternative text"
        if not (folder / match["target"]).is_file():
            yield f"the image {match['target']} is not a file here"
    if cell.cell_type == "markdown" and HTML_IMAGE.search(cell.source):
        yield "an <img> tag: write ![what it shows](file)"
    if ABSOLUTE_PATH.search(cell.source) or ABSOLUTE_PATH.search(str(cell.get("outputs", ""))):
        yield "an absolute path"


def output_complaints(output: Any, cell_tags: set[str]) -> Iterator[str]:
    if output.get("name") == "stderr":
        yield "stored stderr"
    if output.output_type == "error" and "raises-exception" not in cell_tags:
        yield "a stored error without the tag raises-exception"
    data = output.get("data", {})
    if set(data) & set(PICTURES) and len(data.get("text/plain", "").split()) < 4:
        yield "a picture without a sentence in text/plain"
    text = output.get("text", "") + "".join(str(v) for k, v in data.items() if k not in PICTURES)
    if len(text) > OUTPUT_LIMIT:
        yield f"an output of more than {OUTPUT_LIMIT // 1024} KiB"


def good_notebook() -> Any:
    v4 = nbformat.v4
    printed = v4.new_output("stream", name="stdout", text="42\n")
    picture = v4.new_output(
        "display_data", {"image/png": "iVBO", "text/plain": "Three bars, the second highest."}
    )
    cells = [
        v4.new_markdown_cell("# Six times seven"),
        v4.new_code_cell("print(6 * 7)", execution_count=1, outputs=[printed]),
        v4.new_code_cell("figure", execution_count=2, outputs=[picture]),
    ]
    return v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL})


def test_a_good_notebook_has_no_complaints(tmp_path: Path) -> None:
    assert list(complaints(good_notebook(), tmp_path)) == []


def put(path: str, value: Any) -> Callable[[Any], None]:
    """A change to a notebook: put("cells.1.source", "") and the like."""
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]

    def change(notebook: Any) -> None:
        for part in parents:
            notebook = notebook[part]
        notebook[last] = value

    return change


STDERR = nbformat.v4.new_output("stream", name="stderr", text="warning")
ERROR = nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
LONG = nbformat.v4.new_output("stream", name="stdout", text="x" * (OUTPUT_LIMIT + 1))
UNTOLD = nbformat.v4.new_output("display_data", {"image/png": "iVBO", "text/plain": "<Figure>"})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (put("metadata.kernelspec.name", "mine"), "kernel"),
        (put("metadata.widgets", {}), "widget state"),
        (put("cells.2.execution_count", 5), "execution counts"),
        (put("cells.1.execution_count", None), "execution counts"),
        (put("cells.1.outputs", []), "60 %"),
        (put("cells.1.metadata.tags", ["nbval-ignore-output"]), "15 %"),
        (put("cells.1.source", " "), "empty"),
        (put("cells.1.source", "x = 1\n" * 26), "lines"),
        (put("cells.1.outputs", [STDERR]), "stderr"),
        (put("cells.1.outputs", [ERROR]), "stored error"),
        (put("cells.1.outputs", [LONG]), "KiB"),
        (put("cells.2.outputs", [UNTOLD]), "picture without a sentence"),
        (put("cells.0.source", "![](a.png)"), "no alternative text"),
        (put("cells.0.source", "![a bar](gone.png)"), "not a file"),
        (put("cells.0.source", "<img src='a.png'>"), "<img>"),
        (put("cells.1.source", "open('/home/me/x')"), "absolute path"),
    ],
)
def test_each_broken_rule_is_detected(change, complaint: str, tmp_path: Path) -> None:
    notebook = copy.deepcopy(good_notebook())
    change(notebook)
    assert any(complaint in found for found in complaints(notebook, tmp_path))


ALL = [p for p in sorted(NOTEBOOKS.rglob("*.ipynb")) if ".ipynb_checkpoints" not in p.parts]


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.relative_to(NOTEBOOKS).as_posix())
def test_a_notebook_follows_the_rules(path: Path) -> None:
    assert path.stat().st_size <= FILE_LIMIT
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert list(complaints(notebook, path.parent)) == []

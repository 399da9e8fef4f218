"""The form of a lesson: what a reader finds in every one of them, checked without a kernel.

Lessons are the notebooks from 01 on. The time to read one is computed by a stated formula.
"""

import ast
import copy
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oss_lab.course.exercises import list_sheets

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed (extra `test`)")

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
LESSONS = [path for path in sorted(NOTEBOOKS.glob("[012AB]*_*.ipynb")) if path.stem != "00_tour"]
SHEETS = {sheet.lesson: sheet for sheet in list_sheets()}
HEADER = re.compile(
    r"\| reading \| machine \| needs \|\n\|-+\|-+\|-+\|\n"
    r"\| (?P<reading>\d+) minutes \| (?P<machine>under 1 minute|\d+ minutes?) \| (?P<needs>.+) \|"
)
ANSWER = re.compile(
    r"<details><summary>(?:(?!</?summary>).)+</summary>\s+(?:(?!</?details>).){20,}</details>",
    re.DOTALL,
)
UNTOUCHED = re.compile(r"predict\(\s*\"\w+\",\s*\.\.\.[,)\s]")
LAST = ("Your part goes in", "What does not transfer to gpt-oss-20b", "Five questions", "Sources")


def reading_minutes(notebook: Any) -> int:
    """150 words and half a minute per code cell, rounded up to five minutes."""
    markdown = (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    words = sum(len(text.split()) for text in markdown)
    code = sum(cell.cell_type == "code" for cell in notebook.cells)
    return 5 * math.ceil((words / 150 + code / 2) / 5)


def find_calls(cells: list[Any], name: str) -> Iterator[tuple[Any, str]]:
    """The cells that call a function with a text as the first argument, and that text."""
    for cell in cells:
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == name:
                first = node.args[0] if node.args else None
                yield cell, str(first.value) if isinstance(first, ast.Constant) else ""


def complaints(notebook: Any, lesson: str) -> Iterator[str]:
    """One sentence for each rule that the lesson breaks."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    yield from header_complaints(notebook)
    if not list(find_calls([c for c in notebook.cells[:5] if c.cell_type == "code"], "show_map")):
        yield "no cell among the first five shows the map"
    yield from prediction_complaints(code)
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    for heading in LAST:
        if heading not in headings:
            yield f"there is no section {heading!r}"
    if [each for each in headings if each in LAST] != list(LAST):
        yield "its last sections are not in the order of a lesson"
    questions = text.partition("## Five questions")[2].partition("\n## ")[0]
    if len(ANSWER.findall(questions)) != 5 or questions.count("<details>") != 5:
        yield "its five questions are not five answers to unfold"
    if f"(exercises/{lesson}.ipynb)" not in text:
        yield "it does not link to its exercises"


def header_complaints(notebook: Any) -> Iterator[str]:
    first = notebook.cells[0].source
    header = HEADER.search(first)
    if not first.startswith("# ") or "**You will be able to**" not in first:
        yield "its first cell has no title or no objectives"
    if header is None:
        yield "its first cell has no table | reading | machine | needs |"
    elif int(header["reading"]) != reading_minutes(notebook):
        yield f"reading takes {reading_minutes(notebook)} minutes, not {header['reading']}"


def prediction_complaints(code: list[Any]) -> Iterator[str]:
    guesses = list(find_calls(code, "predict"))
    predicted = [name for _, name in guesses]
    revealed = list(find_calls(code, "reveal"))
    if any(not UNTOUCHED.search(cell.source) for cell, _ in guesses):
        yield "a prediction has a guess already: write three dots"
    place = {name: code.index(cell) for cell, name in revealed}
    if any(code.index(cell) >= place.get(name, len(code)) for cell, name in guesses):
        yield "a result comes before its prediction"
    if not predicted:
        yield "it asks for no prediction"
    if sorted(predicted) != sorted(name for _, name in revealed):
        yield "its predictions and results have different names"
    if any("hide-output" not in cell.metadata.get("tags", ()) for cell, _ in revealed):
        yield "a result that was predicted is not folded: add the tag hide-output"
    if not any("calibration()" in cell.source for cell in code):
        yield "it does not end with calibration()"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_has_the_form(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert list(complaints(notebook, path.stem)) == []


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_has_exercises(path: Path) -> None:
    assert len(SHEETS[path.stem].exercises) >= 2


def test_every_sheet_has_a_lesson() -> None:
    assert set(SHEETS) <= {path.stem for path in LESSONS}


def test_predictions_have_unique_names() -> None:
    names = Counter(
        name
        for path in NOTEBOOKS.glob("*.ipynb")
        for _, name in find_calls(
            [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"], "predict"
        )
    )
    assert [name for name, count in names.items() if count > 1] == []


BECAUSE = "A sum of two even numbers is even."


def good_lesson() -> Any:
    v4 = nbformat.v4
    head = (
        "# Sums\n\n**You will be able to** add.\n\n| reading | machine | needs |\n|---|---|---|\n"
        "| 5 minutes | under 1 minute | nothing |"
    )
    answers = "\n\n".join([f"<details><summary>Why?</summary>\n\n{BECAUSE}\n\n</details>"] * 5)
    end = (
        "## Your part goes in\n\n[exercises](exercises/99_sums.ipynb)\n\n"
        f"## What does not transfer to gpt-oss-20b\n\n## Five questions\n\n{answers}\n\n## Sources"
    )
    cells = [
        v4.new_markdown_cell(head),
        v4.new_code_cell('show_map("experts")'),
        v4.new_code_cell('predict("sum", ...)'),
        v4.new_code_cell('reveal("sum", 1 + 2)', metadata={"tags": ["hide-output"]}),
        v4.new_markdown_cell(end),
        v4.new_code_cell("calibration()"),
    ]
    return v4.new_notebook(cells=cells)


def test_a_good_lesson_has_no_complaints() -> None:
    assert list(complaints(good_lesson(), "99_sums")) == []


def replace(number: int, old: str, new: str) -> Callable[[Any], None]:
    def change(notebook: Any) -> None:
        assert old in notebook.cells[number].source
        notebook.cells[number].source = notebook.cells[number].source.replace(old, new)

    return change


def unfold(notebook: Any) -> None:
    notebook.cells[3].metadata = {}


def swap_prediction_and_result(notebook: Any) -> None:
    notebook.cells[2], notebook.cells[3] = notebook.cells[3], notebook.cells[2]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (replace(0, "# Sums", "Sums"), "no title"),
        (replace(0, "| reading |", "| time |"), "no table"),
        (replace(0, "| 5 minutes", "| 10 minutes"), "reading takes 5 minutes, not 10"),
        (replace(1, "show_map", "print"), "the map"),
        (replace(2, "predict", "print"), "no prediction"),
        (replace(2, '"sum"', '"total"'), "different names"),
        (unfold, "not folded"),
        (replace(2, "...", "3"), "has a guess already"),
        (swap_prediction_and_result, "before its prediction"),
        (replace(4, "<details>", "<p>"), "five questions"),
        (replace(4, BECAUSE, "Yes."), "five questions"),
        (replace(4, "## Your part goes in", "## Sources\n\n## Your part goes in"), "the order"),
        (replace(4, "## Sources", ""), "'Sources'"),
        (replace(4, "exercises/99_sums", "exercises/98"), "link to its exercises"),
        (replace(5, "calibration", "print"), "calibration"),
    ],
)
def test_each_broken_rule_is_detected(change: Callable[[Any], None], complaint: str) -> None:
    lesson = copy.deepcopy(good_lesson())
    change(lesson)
    assert any(complaint in found for found in complaints(lesson, "99_sums"))

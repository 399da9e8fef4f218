"""Write the notebooks of exercises from their single source, with or without solutions.

    python -m oss_lab.course.write_sheets notebooks/exercises    # the repository's sheets
    python -m oss_lab.course.write_sheets DIR --solutions        # for teachers

`python -m oss_lab.plots.notebooks notebooks/exercises/*.ipynb` then stores their outputs.
"""

import argparse
import ast
import inspect
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from oss_lab.course.exercise import Exercise, Sheet
from oss_lab.course.exercises import list_sheets
from oss_lab.errors import LabError
from oss_lab.plots.notebooks import normalize

LEVELS = {1: "easy", 2: "medium", 3: "hard"}


def build_notebook(sheet: Sheet, *, solutions: bool = False) -> NotebookNode:
    """The notebook of a sheet, without outputs; cell ids are their numbers."""
    minutes = sum(exercise.minutes for exercise in sheet.exercises)
    head = (
        f"# {sheet.title}\n\n{sheet.text}\n\n"
        "Write each function in place of its `...`, run its cell, then run the check. Stuck? In a"
        " new cell, `hint(the_function, 1)` gives a first hint, 2 and 3 say more, and 4 is a"
        " solution.\n\n"
        f"| exercises | minutes |\n|---|---|\n| {len(sheet.exercises)} | {minutes} |"
    )
    called = ["check", "hint"]
    if any(exercise.part for exercise in sheet.exercises):
        called.insert(0, "ask_nano")
    setup = (
        f"import math\n\nimport torch\n\nfrom oss_lab.course.exercises import {', '.join(called)}"
    )
    cells = [nbformat.v4.new_markdown_cell(head), nbformat.v4.new_code_cell(setup)]
    for number, exercise in enumerate(sheet.exercises, 1):
        cells += build_cells(number, exercise, solutions=solutions)
    for number, cell in enumerate(cells, 1):
        cell["id"] = f"cell-{number:02}"
    notebook = nbformat.v4.new_notebook(cells=cells)
    normalize(notebook)
    return notebook


def build_cells(number: int, exercise: Exercise, *, solutions: bool) -> list[NotebookNode]:
    level, code = LEVELS[exercise.difficulty], nbformat.v4.new_code_cell
    text = (
        f"## {number}. {exercise.title}\n\n*{level}, {exercise.minutes} minutes*\n\n{exercise.text}"
    )
    source = inspect.getsource(exercise.solution) if solutions else build_stub(exercise)
    source = f"{exercise.imports}\n\n\n{source}" if exercise.imports else source
    cells = [nbformat.v4.new_markdown_cell(text), code(source), code(f"check({exercise.name})")]
    return [*cells, code(f"ask_nano({exercise.name})")] if exercise.part else cells


def build_stub(exercise: Exercise) -> str:
    """The solution's signature and docstring; its body becomes three dots and its length."""
    if exercise.stub is not None:
        return exercise.stub
    source = inspect.getsource(exercise.solution)
    (function,) = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    documentation, *body = function.body
    end = documentation.end_lineno
    lines = sum(bool(line.strip()) for line in source.splitlines()[end:])
    assert body, f"{exercise.name} needs a docstring and a body"
    about = "1 line" if lines == 1 else f"{lines} lines"
    return "\n".join([*source.splitlines()[:end], f"    ...  # about {about}"])


def write_sheets(folder: Path, *, solutions: bool = False) -> list[Path]:
    """Write one notebook per sheet into the folder, which is made if it is missing.

    Raises:
        LabError: `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise LabError(f"{folder} is a file; name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for sheet in list_sheets():
        file = folder / f"{sheet.lesson}.ipynb"
        notebook = build_notebook(sheet, solutions=solutions)
        file.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
        files.append(file)
    return files


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the notebooks of exercises.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--solutions", action="store_true", help="with solutions, for teachers")
    given = parser.parse_args(arguments)
    try:
        for file in write_sheets(given.folder, solutions=given.solutions):
            print(f"wrote {file}")
    except LabError as error:
        print(f"oss_lab.course.write_sheets: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Collect the sources of the book in one folder, where they have the places of the repository.

The lessons are all notebooks of `notebooks/` and `notebooks/exercises/`. What they link to comes
along: a Markdown file becomes a page, another file can be downloaded. The book's own pages, from
`notebooks/book/`, are at the top.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import nbformat

from oss_widgets.book.notebook import prepare_notebook

LISTED = re.compile(r"^/(\S+)$", re.MULTILINE)  # in the contents of a page of the book
LINK = re.compile(r"\]\(<?([^)\s>#]+)")
IS_ELSEWHERE = re.compile(r"[a-z]+:")
PATTERNS = ("[0-9]*.ipynb", "[A-Z]_*.ipynb", "exercises/*.ipynb", "*.md", "exercises/*.md")
ORPHAN = "---\norphan: true\n---\n\n"  # Sphinx does not expect every page in its navigation

NOTE = """```{{note}}
This page is the notebook `{}` with its stored results. Its code does not run here, but a view in a
frame is nano, running in your browser. To run the notebook, get the repository and type `make lab`.
```"""


def stage_book(root: Path, stage: Path) -> Iterator[str]:
    """Write the sources of the book of a repository to `stage`; yields what was done."""
    lessons, book = root / "notebooks", root / "notebooks" / "book"
    shutil.copytree(book, stage, ignore=shutil.ignore_patterns("_*", "conf.py"), dirs_exist_ok=True)
    waiting = [file for pattern in PATTERNS for file in sorted(lessons.glob(pattern))]
    for page in sorted(book.glob("*.md")):
        listed = (root / f"{name}.md" for name in LISTED.findall(page.read_text("utf-8")))
        waiting += filter(Path.is_file, listed)
    done = set[Path]()
    while waiting:
        file = waiting.pop(0)
        if file in done or file.is_dir():
            continue
        done.add(file)
        place = stage / file.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".ipynb":
            notebook = nbformat.read(file, as_version=4)
            texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
            for line in prepare_notebook(notebook):
                yield f"{file.name}, {line}"
            notebook.cells.insert(1, nbformat.v4.new_markdown_cell(NOTE.format(file.name)))
            nbformat.write(notebook, place)
        elif file.suffix == ".md":
            texts = [file.read_text("utf-8")]
            place.write_text(ORPHAN + texts[0], "utf-8")
        else:
            texts = []
            shutil.copyfile(file, place)
        waiting += [found for text in texts for found in find_linked(text, file.parent, root)]


def find_linked(text: str, folder: Path, root: Path) -> Iterator[Path]:
    """The files of the repository that a Markdown text links to."""
    for target in LINK.findall(text):
        if not IS_ELSEWHERE.match(target):
            file = (folder / unquote(target)).resolve()
            if file.is_relative_to(root) and file.exists():
                yield file

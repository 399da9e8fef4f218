"""The mutations of `tests/mutations.py` apply to the library, and the pages repeat their table.

Whether a lesson notices them is measured by that program, because it takes minutes.
"""

import re
import runpy
from pathlib import Path

import pytest

pytest.importorskip("nbclient", reason="nbclient is not installed (extra `test`)")

ROOT = Path(__file__).resolve().parents[2]
MUTATIONS = runpy.run_path(str(ROOT / "tests" / "mutations.py"))["MUTATIONS"]


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_line_that_changes_occurs_once(name: str) -> None:
    mutation = MUTATIONS[name]
    assert (ROOT / mutation.file).read_text("utf-8").count(mutation.before) == 1
    assert (ROOT / "notebooks" / f"{mutation.lesson}.ipynb").is_file()


def test_the_book_lists_every_mutation() -> None:
    page = (ROOT / "notebooks" / "book" / "evidence.md").read_text("utf-8")
    listed = re.findall(r"^\| (.+?) \| (\d\d_\w+) \|", page, re.MULTILINE)
    assert listed == [(each.what, each.lesson) for each in MUTATIONS.values()]


def test_the_page_for_teachers_counts_them() -> None:
    page = (ROOT / "notebooks" / "TEACHING.md").read_text("utf-8")
    assert f"for {len(MUTATIONS)} one-line mistakes in the library" in page

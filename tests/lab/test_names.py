"""NAMES.md compares us with TransformerLens and nnsight: our code runs; every point is listed."""

import ast
import re
from pathlib import Path

import pytest

import oss_lab
from oss_lab.hooks.points import POINTS

FOLDER = Path(oss_lab.__file__).parent
PAGE = FOLDER / "hooks/NAMES.md"
LABELS = ["TransformerLens 4", "nnsight 0.8", "oss_lab"]
BLOCK = re.compile(r"^\*\*(?P<label>[^*\n]+)\*\*\n\n```python\n(?P<code>.*?)^```$", re.M | re.S)
ROW = re.compile(r"^\| (?P<lens>.+) \| (?P<nnsight>.+) \| `(?P<ours>[a-z_.]+)` \|$", re.M)
WITHOUT = re.compile(r"^Points without a counterpart .*?: (?P<names>(?:`[a-z_.]+`[,\s]*)+)", re.M)
CODE = re.compile(r"`([^`]+)`")
DASH = "\N{EN DASH}"


@pytest.fixture(scope="module")
def page():
    return PAGE.read_text("utf-8")


@pytest.fixture(scope="module")
def sections(page):
    """The blocks [(label, code), ...] of each section that has blocks, by heading."""
    parts = [part.split("\n", 1) for part in re.split(r"^## ", page, flags=re.M)[1:]]
    found = {heading: BLOCK.findall(text) for heading, text in parts}
    return {heading: blocks for heading, blocks in found.items() if blocks}


def test_ten_tasks_in_three_languages(page, sections):
    assert next(iter(sections)) == "Setup"
    assert len(sections) == 1 + 10
    for blocks in sections.values():
        assert [label for label, _ in blocks] == LABELS
    assert page.count("```") == 2 * 3 * len(sections)  # every fence belongs to a labeled block


def test_our_blocks_are_short_and_end_with_their_result(sections):
    for heading, blocks in sections.items():
        code = dict(blocks)["oss_lab"]
        assert 2 <= sum(bool(line.strip()) for line in code.splitlines()) <= 8, heading
        last = ast.parse(code).body[-1]
        assert isinstance(last, ast.Assert) or ast.unparse(last).startswith("print("), heading


def test_our_blocks_run_in_order(sections):
    names = {}
    for heading, blocks in sections.items():
        exec(compile(dict(blocks)["oss_lab"], f"{PAGE.name}: {heading}", "exec"), names)


def test_the_other_blocks_are_python(sections):
    for blocks in sections.values():
        for label, code in blocks:
            compile(code, label, "exec")


def test_every_point_is_in_the_table_or_listed_as_without_a_counterpart(page):
    rows = list(ROW.finditer(page))
    ours = [row["ours"] for row in rows]
    listed = WITHOUT.search(page)
    assert listed
    alone = CODE.findall(listed["names"])
    assert sorted([*ours, *alone]) == sorted(POINTS)
    assert ours == [name for name in POINTS if name in ours]
    assert alone == [name for name in POINTS if name in alone]


def test_every_row_names_a_counterpart(page):
    for row in ROW.finditer(page):
        lens, nnsight = row["lens"], row["nnsight"]
        assert (lens, nnsight) != (DASH, DASH)
        if lens != DASH:
            assert re.fullmatch(r"`[a-z0-9_.{}]+`", lens)
            assert POINTS[row["ours"]].is_per_layer == ("{i}" in lens)
        if nnsight != DASH:
            ast.parse(nnsight.strip("`"), mode="eval")
            assert POINTS[row["ours"]].is_per_layer == ("[i]" in nnsight)


def test_the_page_is_linked():
    assert "NAMES.md" in (FOLDER / "hooks/__init__.py").read_text("utf-8")
    assert "(oss_lab/hooks/NAMES.md)" in (FOLDER.parent / "README.md").read_text("utf-8")

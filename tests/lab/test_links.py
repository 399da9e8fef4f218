"""Every local link of the notebooks and pages leads to a file, and to a heading that exists.

JupyterLab opens the folder of the notebooks, so a link of a notebook that leaves it is dead there.
Links to other hosts are not followed.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
LEFT_OUT = {".venv", ".ipynb_checkpoints", "_build", "node_modules", ".git"}
FILES = sorted(
    path
    for kind in ("*.ipynb", "*.md")
    for path in ROOT.rglob(kind)
    if not LEFT_OUT & set(path.relative_to(ROOT).parts)
)
LINK = re.compile(
    r"\]\((?P<target>[^)\s]+)(?:\s+[\"'][^)]*)?\)"  # links and images, with or without a title
    r"|\b(?:href|src)=[\"'](?P<attribute>[^\"']+)[\"']"
    r"|^\[[^\]]+\]:\s+(?P<reference>\S+)",
    re.MULTILINE,
)
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)


def read_text(path: Path) -> str:
    text = path.read_text("utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return CODE.sub(" ", text)


def find_anchors(path: Path) -> set[str]:
    """The anchors of the headings, as GitHub (lower case) and JupyterLab write them."""
    headings = re.findall(r"^#+ (.+)$", read_text(path), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading).replace(" ", "-").lower() for heading in headings]
    return {*plain, *(heading.replace(" ", "-") for heading in headings)}


def find_dead_links(path: Path, within: Path) -> Iterator[str]:
    for match in LINK.finditer(read_text(path)):
        link = match["target"] or match["attribute"] or match["reference"]
        target, _, anchor = link.partition("#")
        if re.match(r"\w+:", target):
            continue
        file = (path.parent / target).resolve() if target else path
        if not file.exists():
            yield f"{link} does not exist"
        elif within not in file.parents:
            yield f"{link} leaves {within.name}"
        elif anchor and file.suffix in (".md", ".ipynb") and anchor not in find_anchors(file):
            yield f"{link} names no heading"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_local_links_lead_somewhere(path: Path) -> None:
    within = NOTEBOOKS if path.suffix == ".ipynb" else ROOT
    assert list(find_dead_links(path, within)) == []


@pytest.mark.parametrize(
    ("link", "complaint"),
    [
        ("[a](gone.md)", "does not exist"),
        ("[a](../b.md)", "leaves"),
        ("[a](c.md#nothing)", "names no heading"),
        ('[a](gone.md "title")', "does not exist"),
        ("![a](gone.png)", "does not exist"),
        ("[![a](c.md)](gone.md)", "does not exist"),
        ('<a href="gone.md">a</a>', "does not exist"),
        ("[a][b]\n\n[b]: gone.md", "does not exist"),
    ],
)
def test_a_dead_link_is_found(link: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "b.md").touch()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "c.md").write_text("# A heading\n")
    (folder / "a.md").write_text(link)
    assert complaint in next(find_dead_links(folder / "a.md", folder))
    good = "[a](c.md#a-heading), [b](https://example.org), `[c](gone.md)`, [d](c.md)"
    (folder / "a.md").write_text(good)
    assert list(find_dead_links(folder / "a.md", folder)) == []

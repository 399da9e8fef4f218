"""The pages of the book: what is collected, how docstrings read, and what ends the build."""

import re
import shutil
from collections.abc import Callable
from enum import Enum
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
from oss_widgets.join import read_modules

pytest.importorskip("sphinx", reason="Sphinx is not installed (extra `book`)")

from docutils import nodes
from oss_widgets.book import __main__ as command
from oss_widgets.book.docstrings import describe, describe_object, describe_value, is_value
from oss_widgets.book.stage import stage_book

BOOK = command.SOURCES
TERM = re.compile(r'^  "?([\w -]+?)"?: "(.*)",$', re.MULTILINE)


def make_repository(root: Path, text: str) -> Path:
    """A repository with one lesson that has this text."""
    lesson = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    (root / "notebooks/exercises").mkdir(parents=True)
    nbformat.write(lesson, root / "notebooks/01_first.ipynb")
    ignored = shutil.ignore_patterns("_build", "api", "evidence.md")
    shutil.copytree(BOOK, root / "notebooks/book", ignore=ignored)
    return root


def list_files(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def test_linked_files_come_along_and_others_do_not(tmp_path: Path) -> None:
    root = make_repository(
        tmp_path / "root", "# One\n\n[card](../model/card.md) [web](https://a.b/c)"
    )
    (root / "model").mkdir()
    (root / "model/card.md").write_text(
        "# Card\n\n[code](code.py#L3) ![a plot](a%20plot.png) [up](../../x.md)"
    )
    for name in ("model/code.py", "model/a plot.png", "model/other.md", "notebooks/TEACHING.md"):
        (root / name).write_text("x")
    (tmp_path / "x.md").write_text("not in the repository")
    stage = tmp_path / "stage"
    assert not list(stage_book(root, stage))
    assert list_files(stage) == {
        "index.md",
        "glossary.md",
        "notebooks/01_first.ipynb",
        "notebooks/TEACHING.md",
        "model/card.md",
        "model/code.py",
        "model/a plot.png",
    }


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("# One\n\n$x^2$ and a formula", 0),
        ("# One\n\n[gone](02_gone.ipynb)", 1),
        ("# One\n\n```{live} no\n```", 1),
    ],
)
def test_a_page_with_a_mistake_ends_the_build(monkeypatch, tmp_path, capfd, text, status) -> None:
    root = make_repository(tmp_path / "root", text)
    index = root / "notebooks/book/index.md"
    index.write_text(re.sub("^(evidence|api/index)$", "", index.read_text(), flags=re.MULTILINE))
    glossary = root / "notebooks/book/glossary.md"
    glossary.write_text(re.sub(r"\{doc\}`.*`", "", glossary.read_text()))
    monkeypatch.setattr(command, "ROOT", root)
    monkeypatch.setattr(command, "SOURCES", root / "notebooks/book")
    out = tmp_path / "out"
    assert command.main(["--out", str(out)]) == status
    assert out.exists() == (status == 0)
    if status:
        assert "the book has mistakes" in capfd.readouterr().err
    else:
        assert "<msup>" in (out / "notebooks/01_first.html").read_text("utf-8")


def test_a_folder_that_is_not_a_book_is_left_alone(tmp_path: Path, capsys) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert command.main(["--out", str(tmp_path)]) == 1
    assert "is not a book" in capsys.readouterr().err
    assert list_files(tmp_path) == {"mine.txt"}


def test_the_glossary_says_what_the_views_say() -> None:
    terms = dict(TERM.findall(read_modules()["views/glossary.js"]))
    assert len(terms) > 15
    text = (BOOK / "glossary.md").read_text("utf-8")
    entries = dict(re.findall(r"^(\S.*)\n  (.*)$", text, re.MULTILINE))
    others = [word for word in terms if not entries.get(word, "").startswith(terms[word])]
    assert others == []
    assert list(entries) == sorted(entries, key=str.casefold)


DOCSTRING = """Add *two* numbers, such as `a` and `b`.

    x = add(1, 2)
        y

Args:
    a: the first <b>;
        a second line.
    b: the other one.

Returns:
    The sum.

- one
- two
"""


def test_a_docstring_becomes_elements() -> None:
    text, code, args, entries, returns, total, items = describe(DOCSTRING)
    assert text.astext() == "Add *two* numbers, such as a and b."
    assert code.astext() == "x = add(1, 2)\n    y"
    assert (args.astext(), returns.astext(), total.astext()) == ("Args", "Returns", "The sum.")
    assert [each.astext() for each in entries.children] == [
        "a\n\nthe first <b>; a second line.",
        "b\n\nthe other one.",
    ]
    assert [each.astext() for each in items.children] == ["one", "two"]


class Base:
    """A base."""

    def __init__(self, name: str) -> None: ...

    def change(self, x: int) -> int:
        """Change it."""
        return x


class Example(Base):
    """An example."""

    def change(self, x: int) -> int:
        return x + 1

    def size(self, of: str = "x", rest: object = object()) -> int:
        """Its size."""
        return len(of)


def test_a_class_has_its_methods_with_their_signatures() -> None:
    section = describe_object("Example", Example)
    titles = [title.astext() for title in section.findall(nodes.title)]
    assert titles == ["Example", "Example.size"]
    code = [block.astext() for block in section.findall(nodes.literal_block)]
    assert code == ["Example(name: str)", "size(of='x', rest=...)"]


def call(first, *, text: str = "a, b: c", size=1, _inner=2, rest="x" * 60) -> None:
    """Call it."""


def test_a_long_signature_breaks_between_arguments_and_leaves_out_private_ones() -> None:
    (code,) = describe_object("call", call).findall(nodes.literal_block)
    assert code.astext().splitlines() == [
        "call(first, *, text='a, b: c', size=1,",
        f"    rest='{'x' * 60}')",
    ]


class Kind(Enum):
    """Kinds."""

    ONE = "one"  # the first, `1`
    TWO = "two"


def test_an_enumeration_lists_its_members_with_their_comments() -> None:
    section = describe_object("Kind", Kind)
    entries = [each.astext() for each in section.findall(nodes.definition_list_item)]
    assert entries == ["ONE\n\nthe first, 1", "TWO\n\n"]
    assert not list(section.findall(nodes.literal_block))


SIZES = (1, 2)
"""The two sizes."""


def test_a_value_has_its_text_and_itself_if_it_is_short() -> None:
    assert is_value(SIZES)
    assert is_value(Callable[[int], int])
    assert not is_value(Kind)
    texts = [each.astext() for each in describe_value("SIZES", SIZES, __name__).children]
    assert texts == ["SIZES", "SIZES = (1, 2)", "The two sizes."]


PAGES = sorted((BOOK / "api").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_name_of_the_api_has_a_description(page: Path) -> None:
    for name in re.findall(r"^```\{api\} (\S+)$", page.read_text("utf-8"), re.MULTILINE):
        module = import_module(name)
        for key in module.__all__:
            value = getattr(module, key)
            if key[0] == "_":
                continue
            if is_value(value):
                section = describe_value(key, value, name)
            else:
                section = describe_object(key, value)
            for part in section.findall(nodes.section):
                kinds = {type(each) for each in part.children}
                assert kinds - {nodes.title, nodes.literal_block, nodes.section}, part["names"]

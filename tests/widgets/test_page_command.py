"""`oss-lab page`, found through the entry point in pyproject.toml."""

import importlib
import os
import tomllib
from pathlib import Path

import pytest

from oss_lab.cli import main

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture(autouse=True)
def entry_points(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry points as an installation registers them, also if this one is older."""
    (group,) = tomllib.loads(PROJECT.read_text("utf-8"))["project"]["entry-points"].items()
    lines = [f"[{group[0]}]", *(f"{name} = {module}" for name, module in group[1].items())]
    site = tmp_path_factory.mktemp("site")
    (site / "pages-1.dist-info").mkdir()
    (site / "pages-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: pages\n")
    (site / "pages-1.dist-info" / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(site)
    importlib.invalidate_caches()


def test_it_writes_a_page_and_replaces_only_pages(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(["page"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("wrote nano.html (")
    assert shown.err == ""
    assert Path("nano.html").read_text("utf-8").startswith("<!doctype html>")
    assert main.main(["page"]) == 0
    assert capsys.readouterr().err == "replaced nano.html\n"
    Path("nano.html").write_text("mine")
    assert main.main(["page"]) == 1
    assert "nano.html exists and is not a page of oss_lab" in capsys.readouterr().err
    assert Path("nano.html").read_text() == "mine"


def test_readme_states_the_size_of_the_page(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(["page"]) == 0
    readme = " ".join((Path(__file__).parents[2] / "README.md").read_text("utf-8").split())
    assert f"one file of {Path('nano.html').stat().st_size / 1e6:.1f} MB" in readme


def test_a_pipe_is_not_replaced(tmp_path: Path, capsys) -> None:
    pipe = tmp_path / "pipe.html"
    os.mkfifo(pipe)
    assert main.main(["page", "--out", str(pipe)]) == 1
    assert "is a device or a pipe" in capsys.readouterr().err
    assert pipe.is_fifo()


def test_help_loads_neither_torch_nor_the_weights(capsys) -> None:
    assert main.main(["page", "--help"]) == 0
    assert "--trace FILE" in capsys.readouterr().out

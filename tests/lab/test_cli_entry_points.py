"""Commands that other packages add through entry points."""

import importlib
import sys
from pathlib import Path

import pytest

from oss_lab.cli import main

MODULE = '''"""`oss-lab greet`: print a greeting."""

from typing import Annotated

from typer import Option


def run(name: Annotated[str, Option(help="whom to greet")] = "you") -> int:
    """Print a greeting."""
    print(f"hello, {name}")
    return 0
'''


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """install(entries) -> a package on the path with these entry points and the module above."""

    def write(entries: str) -> None:
        (tmp_path / "added_command.py").write_text(MODULE, "utf-8")
        folder = tmp_path / "added-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: added\nVersion: 1\n")
        (folder / "entry_points.txt").write_text(f"[oss_lab.commands]\n{entries}\n")
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()

    yield write
    sys.modules.pop("added_command", None)


def test_a_command_of_another_package_runs_and_is_listed(install, capsys) -> None:
    install("greet = added_command")
    assert main.main(["greet", "--name", "Ada"]) == 0
    assert capsys.readouterr().out == "hello, Ada\n"
    assert main.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "greet" in shown
    assert "Print a greeting." in shown
    assert main.main(["gret"]) == 2
    assert "Did you mean 'greet'?" in capsys.readouterr().err


def test_a_command_of_oss_lab_is_not_replaced(install, capsys) -> None:
    install("diff = added_command")
    assert main.main(["--help"]) == 0
    assert "Print a greeting." not in capsys.readouterr().out


def test_a_command_that_cannot_be_imported_is_reported(install, capsys) -> None:
    install("broken = added_but_missing")
    assert main.main(["--help"]) == 0
    shown = capsys.readouterr()
    assert "train" in shown.out
    assert "the command broken cannot be loaded: No module named 'added_but_missing'" in shown.err


def test_a_command_of_oss_lab_loads_no_other_package(install, capsys) -> None:
    install("broken = added_but_missing")
    assert main.main(["diff", "--help"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("text", ["raise RuntimeError('boom')", "x = = 1", "run = 5"])
def test_a_broken_command_leaves_the_others_usable(install, tmp_path, capsys, text) -> None:
    (tmp_path / "broken_command.py").write_text(text, "utf-8")
    install("broken = broken_command\ngreet = added_command")
    try:
        assert main.main(["greet"]) == 0
    finally:
        sys.modules.pop("broken_command", None)
    shown = capsys.readouterr()
    assert shown.out == "hello, you\n"
    assert "the command broken cannot be loaded" in shown.err
    assert shown.err.count("\n") == 1

"""The set-up's decisions and sentences, on copies in a temporary folder; nothing is downloaded.

A real installation is what `make test` itself starts with.
"""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = ("bootstrap.py", "pyproject.toml", "constraints.txt")


@pytest.fixture
def bootstrap(tmp_path: Path) -> ModuleType:
    """bootstrap.py imported from a copy of the project's set-up files in tmp_path."""
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path)
    spec = importlib.util.spec_from_file_location("bootstrap", tmp_path / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stopped(capsys) -> str:
    """The one line that `stop` wrote."""
    text = capsys.readouterr().err
    assert text.startswith("oss_lab set-up: ")
    assert len(text.splitlines()) == 1
    return text


def test_old_python_is_told_so(bootstrap, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    with pytest.raises(SystemExit) as ended:
        bootstrap.check_python()
    assert ended.value.code == 1
    assert "Python 3.11 or newer" in stopped(capsys)


def test_old_pythons_can_read_it() -> None:
    """What bars an old Python is the check, not a syntax error before it."""
    import ast

    ast.parse((ROOT / "bootstrap.py").read_text("utf-8"), feature_version=(3, 6))


def test_missing_venv_module_is_told(bootstrap, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(SystemExit):
        bootstrap.check_python()
    assert "python3-venv" in stopped(capsys)


def test_full_disk_is_told_before_anything_is_made(bootstrap, monkeypatch, capsys) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5 * 2**20))
    with pytest.raises(SystemExit):
        bootstrap.make_environment(fresh=False)
    assert "has 5 MiB free" in stopped(capsys)
    assert not bootstrap.VENV.exists()


def test_something_else_called_venv_is_left_alone(bootstrap, capsys) -> None:
    (bootstrap.VENV / "precious").mkdir(parents=True)
    with pytest.raises(SystemExit):
        bootstrap.make_environment(fresh=True)
    assert "in the way" in stopped(capsys)
    assert (bootstrap.VENV / "precious").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for pip is a shell script")
@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("ERROR: Could not install packages: [Errno 28] No space left on device", "disk is full"),
        ("WARNING: Retrying after connection broken by 'NewConnectionError'", "online"),
        ("ERROR: Ignored: x\nERROR: second", "pip says: Ignored: x"),
        ("nothing that looks like an error", "exit status 3"),
    ],
)
def test_what_pip_fails_with_is_one_sentence(bootstrap, output, said, tmp_path, capsys) -> None:
    bootstrap.VENV.mkdir()
    bootstrap.PYTHON = tmp_path / "pip"
    bootstrap.PYTHON.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\nexit 3\n")
    bootstrap.PYTHON.chmod(0o755)
    with pytest.raises(SystemExit):
        bootstrap.install(["anything"], "")
    assert said in stopped(capsys)
    assert output in bootstrap.LOG.read_text()


def test_a_second_run_does_nothing_until_something_changes(bootstrap, monkeypatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(bootstrap, "make_environment", lambda fresh: ran.append(f"make {fresh}"))
    monkeypatch.setattr(bootstrap, "install_torch", lambda: "")
    monkeypatch.setattr(bootstrap, "install", lambda arguments, hint: ran.append(arguments[1]))
    monkeypatch.setattr(bootstrap, "report", lambda seconds: None)
    bootstrap.PYTHON.parent.mkdir(parents=True)
    bootstrap.PYTHON.touch()

    def run(*extras: str) -> list[str]:
        ran.clear()
        monkeypatch.setattr(sys, "argv", ["bootstrap.py", *extras])
        bootstrap.main()
        return ran.copy()

    root = bootstrap.ROOT
    assert run("lab") == ["make False", f"{root}[lab]"]
    assert run("lab") == []
    assert run("test") == ["make False", f"{root}[lab,test]"]
    assert run("lab") == []
    with (root / "constraints.txt").open("a") as constraints:
        constraints.write("# changed\n")
    assert run("lab") == ["make False", f"{root}[lab,test]"]
    moved = json.loads(bootstrap.STAMP.read_text()) | {"folder": "elsewhere", "state": "old"}
    bootstrap.STAMP.write_text(json.dumps(moved))
    assert run("lab") == ["make True", f"{root}[lab,test]"]


def test_unknown_extra_is_told(bootstrap, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["bootstrap.py", "labb"])
    with pytest.raises(SystemExit):
        bootstrap.main()
    assert "labb" in stopped(capsys)


@pytest.mark.parametrize(
    ("gpu", "pip_fails", "tries", "hint"),
    [(True, False, 0, ""), (False, False, 1, ""), (False, True, 1, "6 GiB")],
)
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has two builds on its index")
def test_cpu_build_is_tried_where_there_is_no_gpu(
    bootstrap, monkeypatch, gpu, pip_fails, tries, hint
) -> None:
    asked: list[list[str]] = []

    def pip(arguments: list[str]) -> list[str]:
        asked.append(arguments)
        return ["no"] if pip_fails else []

    monkeypatch.setattr(bootstrap, "has_nvidia_gpu", lambda: gpu)
    monkeypatch.setattr(bootstrap, "installed_version", lambda package: "")
    monkeypatch.setattr(bootstrap, "pip", pip)
    assert hint in bootstrap.install_torch()
    assert len(asked) == tries
    if tries:
        assert asked[0][-1] == "torch==2.13.0+cpu"
        assert asked[0][-2] == bootstrap.CPU_INDEX


def test_constraints_pin_everything_that_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pinned = {
        re.sub(r"[-_.]+", "-", line.split("==")[0]).lower()
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line
    }
    extras = project["optional-dependencies"]
    asked = project["dependencies"] + extras["lab"] + extras["test"] + extras["lint"]
    names = {re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", line)[0]).lower() for line in asked}
    assert names <= pinned


def test_it_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "bootstrap.py"), "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "extras" in done.stdout


def test_a_stamp_that_was_cut_short_counts_as_none(bootstrap) -> None:
    bootstrap.VENV.mkdir()
    bootstrap.STAMP.write_text('{"state": "ab')
    assert bootstrap.read_stamp() == {"state": None, "extras": [], "folder": None}

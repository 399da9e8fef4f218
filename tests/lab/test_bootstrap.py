"""The decisions and messages of the set-up, on copies in a temporary folder. Nothing is downloaded.

`make test` itself starts with a real installation.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Callable
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


def read_error(capsys) -> str:
    """The single line that `stop` printed."""
    text = capsys.readouterr().err
    assert text.startswith("oss_lab set-up: ")
    assert len(text.splitlines()) == 1
    return text


def test_an_old_python_is_refused(bootstrap, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    with pytest.raises(SystemExit) as ended:
        bootstrap.check_python()
    assert ended.value.code == 1
    assert "Python 3.11 or newer" in read_error(capsys)


def test_old_pythons_can_parse_it() -> None:
    """The version check must reject an old Python, not a syntax error before the check."""
    import ast

    ast.parse((ROOT / "bootstrap.py").read_text("utf-8"), feature_version=(3, 6))


def test_a_missing_venv_module_is_reported(bootstrap, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(SystemExit):
        bootstrap.check_python()
    assert "python3-venv" in read_error(capsys)


def test_a_full_disk_is_reported_before_anything_is_created(bootstrap, monkeypatch, capsys) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5 * 2**20))
    with pytest.raises(SystemExit):
        bootstrap.make_environment("")
    assert "has 5 MiB free" in read_error(capsys)
    assert not bootstrap.VENV.exists()


def test_something_else_called_venv_is_left_alone(bootstrap, capsys) -> None:
    (bootstrap.VENV / "precious").mkdir(parents=True)
    with pytest.raises(SystemExit):
        bootstrap.make_environment("moved")
    assert "in the way" in read_error(capsys)
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
def test_a_failure_of_pip_is_one_sentence(bootstrap, output, said, tmp_path, capsys) -> None:
    bootstrap.VENV.mkdir()
    bootstrap.PYTHON = tmp_path / "pip"
    bootstrap.PYTHON.write_text(f"#!/bin/sh\ncat <<'END'\n{output}\nEND\nexit 3\n")
    bootstrap.PYTHON.chmod(0o755)
    with pytest.raises(SystemExit):
        bootstrap.install(["anything"], "")
    assert said in read_error(capsys)
    assert output in bootstrap.LOG.read_text()


@pytest.fixture
def run(bootstrap, monkeypatch) -> Callable[..., list[str]]:
    """What a run with these arguments would do, in a `.venv` of the running Python."""
    ran: list[str] = []

    def hand_over(command: list[str]) -> int:
        ran.append(f"run {command}")
        return 7

    monkeypatch.setattr(bootstrap, "environment_python", bootstrap.running_python)
    monkeypatch.setattr(bootstrap, "make_environment", lambda clear: ran.append(f"make {clear}"))
    monkeypatch.setattr(bootstrap, "install_torch", lambda: "")
    monkeypatch.setattr(bootstrap, "install", lambda arguments, hint: ran.append(arguments[1]))
    monkeypatch.setattr(bootstrap, "report", lambda seconds: None)
    monkeypatch.setattr(subprocess, "call", hand_over)
    bootstrap.VENV.mkdir()

    def run(*arguments: str) -> list[str]:
        ran.clear()
        monkeypatch.setattr(sys, "argv", ["bootstrap.py", *arguments])
        try:
            bootstrap.main()
        except SystemExit as ended:
            ran.append(f"exit {ended.code}")
        return ran.copy()

    return run


def test_a_second_run_does_nothing_until_something_changes(bootstrap, run) -> None:
    root = bootstrap.ROOT
    assert run("lab") == ["make ", f"{root}[lab]"]
    assert run("lab") == run("--this-python", "lab") == []
    assert run("test") == ["make ", f"{root}[lab,test]"]
    assert run("lab") == []
    with (root / "constraints.txt").open("a") as constraints:
        constraints.write("# changed\n")
    assert run("lab") == ["make ", f"{root}[lab,test]"]
    moved = json.loads(bootstrap.STAMP.read_text()) | {"folder": "elsewhere"}
    bootstrap.STAMP.write_text(json.dumps(moved))
    assert run("lab") == [
        "make this folder was moved, and .venv contains absolute paths",
        f"{root}[lab,test]",
    ]


def test_a_python_that_the_user_names_replaces_the_old_one(bootstrap, run, monkeypatch) -> None:
    """`make lab PYTHON=python3.12` used to keep a `.venv` of 3.11 without a message."""
    run("lab")
    monkeypatch.setattr(bootstrap, "environment_python", lambda: ["3.9.1 (old)", "/there"])
    made, installed = run("--this-python", "lab")
    assert made.startswith("make it has Python 3.9.1 in /there, but you named ")
    assert installed == f"{bootstrap.ROOT}[lab]"


@pytest.mark.parametrize("version", [(3, 9, 2), sys.version_info])
def test_without_a_named_python_the_existing_environment_is_used(
    bootstrap, run, monkeypatch, version
) -> None:
    """Plain `make test` after `make lab PYTHON=python3.12`, when python3 is another or too old
    version."""
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr(bootstrap, "environment_python", lambda: ["3.12.1", "/there"])
    command = [str(bootstrap.PYTHON), str(bootstrap.ROOT / "bootstrap.py"), "test"]
    assert run("test") == [f"run {command}", "exit 7"]


def test_an_unusable_environment_is_recreated(bootstrap, run, monkeypatch) -> None:
    run("lab")
    monkeypatch.setattr(bootstrap, "environment_python", lambda: None)
    assert run("lab")[0] == "make its Python does not run, is too old or has no pip"


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for pip lies in POSIX's place")
def test_an_environments_python_is_found_by_running_it(bootstrap) -> None:
    assert bootstrap.environment_python() is None
    venv.create(bootstrap.VENV, symlinks=True)
    # As if set-up was stopped before pip was installed.
    assert bootstrap.environment_python() is None
    (packages,) = bootstrap.VENV.glob("lib/python*/site-packages")
    (packages / "pip.py").touch()
    assert bootstrap.environment_python() == bootstrap.running_python()
    bootstrap.MINIMUM = (9, 0)
    assert bootstrap.environment_python() is None
    bootstrap.MINIMUM = (3, 11)
    bootstrap.PYTHON.unlink()
    bootstrap.PYTHON.symlink_to("a-python-that-was-removed")
    assert bootstrap.environment_python() is None


def test_recreating_is_reported_and_clears(bootstrap, monkeypatch, capsys) -> None:
    commands: list[list[str]] = []

    def make(command: list[str], **_: object) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(returncode=0)

    bootstrap.VENV.mkdir()
    (bootstrap.VENV / "pyvenv.cfg").touch()
    monkeypatch.setattr(subprocess, "run", make)
    bootstrap.make_environment("")
    assert commands == []
    bootstrap.make_environment("it is odd")
    assert commands == [[sys.executable, "-m", "venv", "--clear", str(bootstrap.VENV)]]
    assert capsys.readouterr().out == "oss_lab set-up: recreating .venv: it is odd\n"


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("given", "environment", "said"),
    [
        ([], {}, "python3 bootstrap.py  lab"),
        (["PYTHON=python3.12"], {}, "python3.12 bootstrap.py --this-python lab"),
        ([], {"PYTHON": "python3.12"}, "python3.12 bootstrap.py --this-python lab"),
    ],
)
def test_make_passes_on_the_python_that_the_user_named(given, environment, said) -> None:
    names = ("PYTHON", "MAKEFLAGS", "MFLAGS", "MAKELEVEL")  # set by the make that may run this test
    rest = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        ["make", "-n", "lab", *given], cwd=ROOT, env=rest | environment, capture_output=True
    )
    assert done.stdout.decode().splitlines()[0] == said


def test_an_unknown_extra_is_reported(bootstrap, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["bootstrap.py", "labb"])
    with pytest.raises(SystemExit):
        bootstrap.main()
    assert "labb" in read_error(capsys)


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


def test_constraints_pin_every_requirement_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pinned = {
        re.sub(r"[-_.]+", "-", line.split("==")[0]).lower()
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if "==" in line
    }
    extras = project["optional-dependencies"]
    asked = project["dependencies"] + [line for lines in extras.values() for line in lines]
    names = {re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", line)[0]).lower() for line in asked}
    assert names - {"oss-lab"} <= pinned  # an extra may require another extra


def test_it_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "bootstrap.py"), "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "extras" in done.stdout


def test_a_truncated_stamp_counts_as_none(bootstrap) -> None:
    bootstrap.VENV.mkdir()
    bootstrap.STAMP.write_text('{"state": "ab')
    assert bootstrap.read_stamp() == {"state": None, "extras": [], "folder": None}

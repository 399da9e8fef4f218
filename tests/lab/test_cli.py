"""The common part of the command line: one line per error, the right exit status, and a fast
start.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from oss_lab import __version__
from oss_lab.cli import lab, main
from oss_lab.errors import LabError

HEAVY = ("torch", "numpy", "transformers", "plotly", "rich", "jupyterlab", "huggingface_hub")


def oss_lab(*arguments: str, **options) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "oss_lab", *arguments], capture_output=True, text=True, **options
    )


def one_line(text: str) -> str:
    assert text.endswith("\n")
    assert len(text.splitlines()) == 1
    return text


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-command"],
        ["--no-such-option"],
        ["lab", "--no-such-option"],
        ["lab", "--port", "eighty"],
        ["lab", "--port", "70000"],
        ["lab", "--port", "9" * 6000],
        ["lab", "a", "b"],
        ["lab", "a", "two\nlines", "\x1b[31m"],
    ],
)
def test_a_usage_error_is_one_line(arguments: Sequence[str], capsys) -> None:
    assert main.main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert one_line(output.err).startswith("oss-lab")
    assert "\x1b" not in output.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evl"], "oss-lab: No such command 'evl'. Did you mean 'eval'? (see oss-lab --help)"),
        (["lab", "--prot"], "No such option: --prot (Possible options: --port) (see oss-lab lab"),
        (["lab", "--port"], "oss-lab lab: Option '--port' requires an argument (see oss-lab lab"),
        (
            ["lab", "--port", "0"],
            "'--port': 0 is not a port: give a number from 1 to 65535",
        ),
        (
            ["convert", "x"],
            "Missing option '--to'. Choose from: original, huggingface, gguf (see oss-lab",
        ),
        (["chat", "--effort", "x"], "'--effort': 'x' is not one of 'low', 'medium', 'high' (see"),
    ],
)
def test_a_usage_error_has_a_remedy(arguments: Sequence[str], said: str, capsys) -> None:
    assert main.main(arguments) == 2
    assert said in one_line(capsys.readouterr().err)


def test_help_lists_every_command(capsys) -> None:
    assert main.main(["--help"]) == 0
    shown = capsys.readouterr().out
    places = [shown.index(f"\n  {module.__name__.rpartition('.')[2]} ") for module in main.COMMANDS]
    assert places == sorted(places)
    assert "completion" not in shown


def test_version(capsys) -> None:
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"oss-lab {__version__}\n"


def test_every_command_file_is_listed() -> None:
    files = {path.stem for path in Path(main.__file__).parent.glob("[a-z]*.py")} - {"main"}
    assert files == {module.__name__.rpartition(".")[2] for module in main.COMMANDS}


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (LabError("block.3 is cut off: fetch it again"), 1, "block.3 is cut off"),
        (FileNotFoundError(2, "No such file or directory", "a.json"), 1, "a.json: No such file"),
        (PermissionError(13, "Permission denied", "b"), 1, "b: Permission denied"),
        (OSError("something about a disk"), 1, "something about a disk"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), 1, "not UTF-8"),
        (json.JSONDecodeError("Expecting value", "x", 0), 1, "not JSON"),
        (LabError("two\nlines"), 1, "two lines"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_users_mistake_is_one_line(error, status: int, said: str, monkeypatch, capsys) -> None:
    def fail() -> int:
        raise error

    monkeypatch.setattr(lab, "run", fail)
    assert main.main(["lab"]) == status
    shown = capsys.readouterr().err
    assert said in shown
    assert not said or one_line(shown)


def test_a_bug_in_our_code_keeps_its_traceback(monkeypatch) -> None:
    monkeypatch.setattr(lab, "run", lambda: [][0])
    with pytest.raises(IndexError):
        main.main(["lab"])


def test_starting_imports_nothing_large() -> None:
    code = f"""
import sys
from oss_lab.cli.main import main
assert main(["--help"]) == main(["eval", "--help"]) == 0
print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr == "[]\n"


@pytest.mark.skipif(os.name != "posix", reason="closes a POSIX pipe")
@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_closed_pipe_prints_nothing(lines: int) -> None:
    code = f"""
import sys
from oss_lab.cli import lab, main
lab.run = lambda: print("a line\\n" * {lines}) or 0
sys.exit(main.main(["lab"]))
"""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(os.name != "posix", reason="closes a POSIX descriptor")
@pytest.mark.parametrize(
    "arguments", [["inspect", "20b"], ["inspect", "20b", "--json"], ["--help"]]
)
def test_a_closed_output_is_one_line(arguments: Sequence[str]) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -m oss_lab "$@" >&-', sys.executable, *arguments],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 1
    assert "standard output is closed" in one_line(done.stderr)


@pytest.mark.skipif(os.name != "posix", reason="closes a POSIX descriptor")
def test_an_error_is_not_printed_on_stdout_if_stderr_is_closed() -> None:
    command = ["sh", "-c", 'exec "$0" -m oss_lab inspect /no/such 2>&-', sys.executable]
    done = subprocess.run(command, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (1, b"")


@pytest.mark.parametrize("arguments", [["inspect"], ["convert", "--to=original", "--out=x"]])
def test_an_unknown_user_after_a_tilde_is_one_line(arguments: Sequence[str]) -> None:
    done = oss_lab(*arguments, "~no-such-user-here/model")
    assert done.returncode == 1
    assert "does not exist" in one_line(done.stderr)


def test_lab_names_the_missing_notebook(tmp_path: Path) -> None:
    done = oss_lab("lab", str(tmp_path / "gone.ipynb"))
    assert done.returncode == 1
    assert "gone.ipynb" in one_line(done.stderr)


def test_lab_reports_that_a_wheel_has_no_notebooks(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(lab, "TOUR", tmp_path / "00_tour.ipynb")
    assert main.main(["lab"]) == 1
    assert "source tree: copy them with `oss-lab notebooks DIR`" in one_line(
        capsys.readouterr().err
    )


def test_lab_reports_that_jupyterlab_is_missing(tmp_path: Path, monkeypatch, capsys) -> None:
    notebook = tmp_path / "a.ipynb"
    notebook.write_text("{}")
    monkeypatch.setitem(sys.modules, "jupyterlab", None)
    assert main.main(["lab", str(notebook)]) == 1
    assert 'pip install "oss-lab[lab]"' in one_line(capsys.readouterr().err)


def test_lab_reports_that_a_port_is_in_use(tmp_path: Path, capsys) -> None:
    notebook = tmp_path / "a.ipynb"
    notebook.write_text("{}")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main.main(["lab", "--port", str(port), str(notebook)]) == 1
    assert f"port {port}" in one_line(capsys.readouterr().err)


@pytest.mark.skipif(sys.platform != "linux", reason="names of arbitrary bytes are Linux's")
def test_names_that_cannot_be_encoded_are_printed_and_refused_in_one_line(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    assert any("caf%E9" in word for word in lab.server_arguments(Path(name), None, no_browser=True))
    source = str(tmp_path / "日本")
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    code = f"""
from oss_lab.cli import lab, main
lab.run = lambda: print({source!r}) or 0
main.main(["lab"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=ascii_only)
    assert (done.stdout[-13:], done.stderr) == (b"\\u65e5\\u672c\n", b"")


def test_lab_serves_loopback_with_a_token_for_any_notebook_name(tmp_path: Path) -> None:
    notebook = tmp_path / "--ip=0.0.0.0 #?.ipynb"
    words = lab.server_arguments(notebook, 8901, no_browser=True)
    assert "--ServerApp.ip=127.0.0.1" in words
    assert f"--ServerApp.root_dir={tmp_path}" in words
    assert "--LabApp.default_url=/lab/tree/--ip%3D0.0.0.0%20%23%3F.ipynb" in words
    assert not any("token" in word or "password" in word for word in words)

"""`oss-lab serve`: its options, and one sentence for each mistake."""

import socket
import sys

import pytest

from oss_lab.cli.main import main

pytest.importorskip("uvicorn", reason="the extra `server` is not installed")


def fail(capsys, *options):
    """The one line that the command prints."""
    assert main(["serve", *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_mistakes_are_one_sentence(capsys, tmp_path):
    assert "expected a checkpoint to serve" in fail(capsys)
    assert "the token must be ASCII" in fail(capsys, "nano", "--token", "two words")
    assert "'no.such.host.invalid' cannot be used" in fail(
        capsys, "nano", "--host", "no.such.host.invalid"
    )
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        assert f"port {port} of 127.0.0.1 is not available" in fail(capsys, "nano", "--port", port)
    assert main(["serve", "nano", "--port", "70000"]) == 2
    assert "70000 is not a port" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["fastapi", "uvicorn"])
def test_a_missing_package_names_its_extra(name, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    assert 'run `pip install "oss-lab[server]"`' in fail(capsys, "nano")

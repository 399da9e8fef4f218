"""`oss-lab doctor`: each finding in both states, and the whole on this machine."""

import errno
import tempfile
from importlib.metadata import PackageNotFoundError

import pytest

from oss_lab.cli.main import main
from oss_lab.course import doctor


def test_this_machine_is_examined(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("OSS_LAB_COURSE", str(tmp_path))
    status = main(["doctor", "--seconds", "600"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert all(line.startswith(("ok  ", "problem")) for line in lines[:-1])
    assert any("with 21514 in" in line for line in lines)
    assert any("a notebook's kernel started" in line for line in lines)
    is_ready = not any(line.startswith("problem") for line in lines)
    assert status == (0 if is_ready else 1)
    assert lines[-1].startswith("ready" if is_ready else "not ready")


def test_a_slow_machine_is_a_problem():
    finding = doctor.check_answer(1e-6)
    assert not finding.is_ok
    assert "so the notebooks will be slow" in finding.text


@pytest.mark.parametrize(
    ("free", "is_ok", "text"),
    [
        (int(9.7 * 2**30), True, "9.7 GiB of memory are free: enough for 16 open notebooks"),
        (2**29, False, "enough for 0 open notebooks; a notebook needs 0.6 GiB, so close other"),
        (None, True, "not known"),
    ],
)
def test_memory(free, is_ok, text, monkeypatch):
    monkeypatch.setattr(doctor, "find_free_memory", lambda device: free)
    finding = doctor.check_memory()
    assert finding.is_ok == is_ok
    assert text in finding.text


def test_missing_packages_are_named(monkeypatch):
    def version(name):
        if name in ("jupyterlab", "triton"):
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(doctor, "version", version)
    finding = doctor.check_packages()
    assert not finding.is_ok
    assert finding.text == 'jupyterlab not installed: run `pip install "oss-lab[lab]"`'
    assert (
        doctor.check_triton().text
        == "triton is not installed: 07_kernels does not compare with its interpreter"
    )


def test_a_folder_that_cannot_be_written_is_a_problem(monkeypatch, tmp_path):
    def refuse(dir):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setenv("OSS_LAB_COURSE", str(tmp_path))
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    finding = doctor.check_folder()
    assert not finding.is_ok
    assert finding.text.endswith("Read-only file system")


def test_a_wrong_answer_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor, "ANSWER", "21515")
    finding = doctor.check_answer(600)
    assert not finding.is_ok
    assert "not 21515" in finding.text

"""Compiled code is cached on disk and reused only while the sources are unchanged."""

import shutil
from importlib import util
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="numba is not installed")

from oss_kernels.cpu import sources


def fingerprint_of(folder: Path, *others: str) -> str:
    """The fingerprint of the files in a folder, and in others beside it, from a copy of `sources`
    in it.
    """
    spec = util.spec_from_file_location("copied_sources", folder / "sources.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.fingerprint(*others)


def test_the_fingerprint_changes_with_every_file(tmp_path):
    folder = tmp_path / "cpu"
    here = Path(sources.__file__).parent
    shutil.copytree(here, folder, ignore=shutil.ignore_patterns("__pycache__"))
    seen = {fingerprint_of(folder)}
    assert seen == {sources.fingerprint()}
    for file in sorted(folder.glob("*.py")):
        file.write_text(file.read_text() + "\n")
        seen.add(fingerprint_of(folder))
    assert len(seen) == 1 + len(list(folder.glob("*.py")))


def test_the_fingerprint_of_another_folder(tmp_path):
    here = Path(sources.__file__).parent
    shutil.copytree(here, tmp_path / "cpu", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "other").mkdir()
    file = tmp_path / "other/kernel.py"
    seen = {fingerprint_of(tmp_path / "cpu"), sources.fingerprint("decode_step")}
    for text in ("x = 1\n", "x = 2\n"):
        file.write_text(text)
        seen.add(fingerprint_of(tmp_path / "cpu", "other"))
    assert len(seen) == 4

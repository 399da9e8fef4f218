"""Compiled code is kept on disk, and is used again only while the sources are the same."""

import shutil
from importlib import util
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="numba is not installed")

from oss_kernels.cpu import sources


def fingerprint(folder: Path) -> str:
    """Of the files in a folder, by a copy of `sources` there."""
    spec = util.spec_from_file_location("copied_sources", folder / "sources.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.fingerprint()


def test_the_fingerprint_changes_with_every_file(tmp_path):
    folder = tmp_path / "cpu"
    here = Path(sources.__file__).parent
    shutil.copytree(here, folder, ignore=shutil.ignore_patterns("__pycache__"))
    seen = {fingerprint(folder)}
    assert seen == {sources.fingerprint()}
    for file in sorted(folder.glob("*.py")):
        file.write_text(file.read_text() + "\n")
        seen.add(fingerprint(folder))
    assert len(seen) == 1 + len(list(folder.glob("*.py")))

"""What `pytest --nbval` does without further arguments, in a folder with one test of each kind."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("nbval", reason="nbval is not installed (extra `test`)")

ROOT = Path(__file__).resolve().parents[2]
TESTS = """
import os
import pytest

def test_fast(): assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
@pytest.mark.slow
def test_slow(): pass
@pytest.mark.browser
def test_browser(): pass
"""
HEADER = "| reading | machine | needs |\n|---|---|---|\n| 5 minutes | under {} minute | nothing |"
CELL = """
from os import environ
print(environ["CUDA_VISIBLE_DEVICES"] or "no GPU", environ["OMP_NUM_THREADS"])
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`run("-m", "slow")`: how pytest --nbval ends there, and what it prints."""
    for name in ("conftest.py", "sanitize.cfg"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n browser\n")
    (tmp_path / "test_kinds.py").write_text(TESTS)
    v4 = nbformat.v4
    output = v4.new_output("stream", name="stdout", text="no GPU 1\n")
    cell = v4.new_code_cell(CELL, execution_count=1, outputs=[output])
    for name, minutes in (("a", 1), ("late", 0)):
        header = v4.new_markdown_cell(HEADER.format(minutes))
        nbformat.write(v4.new_notebook(cells=[header, cell]), tmp_path / f"{name}.ipynb")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def pytest_prints(*arguments, notebook="a.ipynb"):
        command = [sys.executable, "-m", "pytest", "--nbval", "-n", "0", "test_kinds.py", notebook]
        command += arguments
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    return pytest_prints


def test_slow_and_browser_tests_are_left_out_with_a_reason(run):
    ended = run()
    printed = ended.stdout
    assert ended.returncode == 0
    assert "2 passed, 2 deselected" in printed  # the fast test and the notebook's cell
    assert "slow tests are deselected: `make test-slow` runs them" in printed
    assert "browser tests are deselected: they need Chromium" in printed


def test_slow_and_browser_tests_run_if_their_mark_is_requested(run):
    printed = run("-m", "slow or browser").stdout
    assert "2 passed, 2 deselected" in printed
    assert "are deselected:" not in printed


def test_a_notebook_that_takes_over_twice_its_headers_minutes_fails_the_run(run):
    late = run("-n", "1", notebook="late.ipynb")
    assert "2 passed" in late.stdout
    assert "over twice the 0 min of its header" in late.stdout
    assert late.returncode == 1

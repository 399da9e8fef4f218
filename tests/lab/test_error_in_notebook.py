"""A mistake in a notebook shows the user's lines and one sentence, and no line of the library."""

import os
import subprocess
import sys

import pytest

import oss_lab
from oss_lab.errors import LabError

CELL = """
def ask():
    with lab.intervene(oss_lab.AblateHead(layer=0, head=0)):
        return lab.chat(347)

ask()
"""


def test_ipython_shows_the_users_lines_only(nano) -> None:
    """The frames of `contextlib` and of the library are left out, and those of a cell stay."""
    cell = compile(CELL, "/a/ipykernel_1/23.py", "exec")
    with pytest.raises(LabError) as raised:
        exec(cell, {"lab": nano, "oss_lab": oss_lab})
    *lines, sentence = raised.value._render_traceback_()
    assert [line.partition(":")[0] for line in lines[-2:]] == [
        "line 6 of the cell",
        "line 4 of the cell",
    ]
    assert all("of the cell" in line or "test_error_in_notebook.py" in line for line in lines)
    assert sentence.startswith("LabError: question must be text")


def test_ipython_uses_it(tmp_path) -> None:
    pytest.importorskip("IPython", reason="IPython is not installed (extra `lab`)")
    command = [sys.executable, "-m", "IPython", "-c", "import oss_lab\noss_lab.load('nanoo')"]
    there = os.environ | {"IPYTHONDIR": str(tmp_path)}
    shown = subprocess.run(command, env=there, capture_output=True, text=True).stdout
    assert "line 2 of the cell: oss_lab.load('nanoo')" in shown
    assert "did you mean nano?" in shown
    assert "checkpoint" not in shown

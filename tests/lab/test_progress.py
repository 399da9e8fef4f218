"""Progress: every item is yielded, and the bar is shown only on a terminal."""

import io

import pytest

from oss_lab import progress as module
from oss_lab.progress import track_progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("terminal", "silent", "shown"), [(True, "", True), (True, "1", False), (False, "", False)]
)
def test_a_bar_is_shown_on_a_terminal_unless_it_is_turned_off(monkeypatch, terminal, silent, shown):
    out = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    monkeypatch.setattr(module, "DELAY", 0)
    monkeypatch.setenv("TQDM_DISABLE", silent)
    assert list(track_progress([3, 1, 2], "counting", "number")) == [3, 1, 2]
    assert ("counting" in out.getvalue()) == shown

"""The page of kernel results says what the result says, and refuses what is none."""

import json
import sys

import pytest

from oss_lab import kernel_page
from oss_lab.plots.kernel_speed import kernel_speed

CPU = {
    "date": "2030-01-02T03:04:05+00:00",
    "device": {"name": "A <b>CPU</b>", "threads": 2},
    "rows": [
        {"name": "reading memory", "share_of_reading": 1.0},
        {"name": "MXFP4 8 to 8, 1 token", "share_of_reading": 0.25},
    ],
}
GPU = {
    "date": "2030-01-02T03:04:05+00:00",
    "device": {"name": "A GPU"},
    "limits": {"copy": 1e12, "matrix": 1e14},
    "rows": [{"case": "router", "model": "20b", "share_of_copy": 0.5, "share_of_matrix": 0.125}],
}


def test_bars_are_the_shares_with_the_first_row_on_top():
    (bars,) = kernel_speed(CPU).plotly.data
    assert list(bars.x) == [0.25, 1.0]
    assert list(bars.y) == ["MXFP4 8 to 8, 1 token", "reading memory"]
    memory, matrix = kernel_speed(GPU).plotly.data
    assert (list(memory.x), list(matrix.x), list(memory.y)) == ([0.5], [0.125], ["router (20b)"])


def run(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["kernel_page", *map(str, arguments)])
    return kernel_page.main()


def test_a_page_of_several_results_with_names_escaped(monkeypatch, tmp_path):
    for name, found in (("cpu", CPU), ("gpu", GPU)):
        (tmp_path / name).write_text(json.dumps(found))
    assert run(monkeypatch, tmp_path / "cpu", tmp_path / "gpu", tmp_path / "page.html") == 0
    text = (tmp_path / "page.html").read_text()
    assert text.count("<figure>") == 2
    assert "<b>CPU" not in text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows": []}'])
def test_other_files_are_refused_in_one_sentence(monkeypatch, tmp_path, capsys, text):
    (tmp_path / "other").write_text(text)
    assert run(monkeypatch, tmp_path / "other", tmp_path / "page.html") == 1
    error = capsys.readouterr().err
    assert "is no result of" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "page.html").exists()

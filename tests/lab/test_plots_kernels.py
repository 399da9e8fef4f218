"""Figures and data of the lesson about kernels: bytes by part, and the limit of memory."""

import importlib.resources
import json
from pathlib import Path
from typing import Any

import pytest

from oss_lab.errors import LabError
from oss_lab.plots import context_cost
from oss_lab.plots.byte_bars import byte_bars
from oss_lab.plots.speed_limits import speed_limits

ROWS = {"<b>one": {"x": 300, "weights": 900}, "two": {"x": 0, "weights": 600}}


def test_a_section_is_as_long_as_its_bytes():
    figure = byte_bars(ROWS, "Bytes")
    x, weights = figure.json()["data"]
    assert (x["x"], weights["x"]) == ([0.3, 0.0], [0.9, 0.6])
    assert x["y"] == ["&lt;b&gt;one", "two"]
    assert figure.json()["layout"]["xaxis"]["title"]["text"] == "kB"
    assert figure.sentence == (
        "<b>one: 1.2 kB, of which x 25%, weights 75%; two: 600 bytes, of which x 0%, weights 100%."
    )
    assert "900 bytes" in repr(figure.table())


def test_rows_must_have_the_same_parts():
    with pytest.raises(LabError, match="two has the parts"):
        byte_bars({"one": {"x": 1, "weights": 2}, "two": {"x": 1}}, "Bytes")
    for rows in ({}, {"one": {str(n): n for n in range(7)}}):
        with pytest.raises(LabError, match="expected 1 to 6 parts"):
            byte_bars(rows, "Bytes")


def test_a_limit_is_bandwidth_divided_by_bytes():
    figure = speed_limits({"big": 2e9, "small": 5e8}, {"fast": 11357, "slow": 10})
    big, small = figure.json()["data"]
    assert (big["x"], big["y"], small["y"]) == ([10, 11357], [5, 5678.5], [20, 22714])
    assert big["line"]["dash"] != small["line"]["dash"]
    assert figure.sentence == (
        "big reads 2 GB per token, which allows these tokens per second: 5 with slow, 5,680 with"
        " fast. small reads 0.5 GB per token, which allows these tokens per second: 20 with slow,"
        " 22,700 with fast."
    )


def test_limits_need_positive_numbers():
    with pytest.raises(LabError, match="'slow' must have a number above 0"):
        speed_limits({"big": 1}, {"slow": 0})
    with pytest.raises(LabError, match="expected memories, and 1 to 4 models; got 0 and 1"):
        speed_limits({"big": 1}, {})


def test_the_lesson_has_the_newest_timings():
    results = Path(__file__).resolve().parents[2] / "kernels" / "benchmarks" / "results"
    newest = max(results.glob("cpu-*.json"), default=None)
    if newest is None:
        pytest.skip("no CPU result is committed in kernels/benchmarks/results")
    copied = importlib.resources.files("oss_lab").joinpath("assets/course/cpu_kernels.json")
    message = f"copy {newest.name} to oss_lab/assets/course/cpu_kernels.json"
    assert json.loads(copied.read_text("utf-8")) == json.loads(newest.read_text("utf-8")), message


def make_report(*tasks: str) -> dict[str, Any]:
    spread = {"median": 40.0, "low": 39.0, "high": 43.0}
    rows = [{"task": task, "spread": spread, "bytes": 100 * 2**20, "n": 5} for task in tasks]
    device = {"name": "A <b>CPU</b>", "threads": 2}
    return {"checkpoint": "a", "dtype": "b", "device": device, "reading": 10.0, "rows": rows}


def test_the_limit_of_a_step_is_its_bytes_over_the_rate_of_reading():
    figure = context_cost(make_report("decode 100 after 100", "step after 0", "step after 4,096"))
    measured, limit = figure.json()["data"]
    assert (measured["x"], measured["y"]) == ([0, 4096], [40.0, 40.0])
    assert (measured["error_y"]["array"], measured["error_y"]["arrayminus"]) == ([3, 3], [1, 1])
    assert limit["y"] == pytest.approx([10.48576, 10.48576])
    assert figure.sentence == (
        "A step takes 40.0 ms after 0 tokens and 40.0 ms after 4,096; reading its 100 and 100 MiB"
        " once would take 10.5 and 10.5 ms."
    )
    assert "&lt;b&gt;CPU" in figure.json()["layout"]["title"]["subtitle"]["text"]
    with pytest.raises(LabError, match="no task 'context'"):
        context_cost(make_report("decode 100 after 100"))

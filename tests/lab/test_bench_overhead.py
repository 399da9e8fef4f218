"""The report includes the full cost of recording, and slow recording is visible in it."""

import json
import sys
import time
from itertools import product
from statistics import median

import numpy as np
import pytest
import torch
from oss_kernels.backends import find_obstacle

from oss_lab.analysis.statistics.bootstrap import bootstrap_interval
from oss_lab.bench import overhead, recording
from oss_lab.bench.recording import NOTHING, RECORDED, make_tasks, measure_costs
from oss_lab.engine import row as engine_row
from oss_lab.engine.choice import Engines
from oss_lab.hooks.cost import nbytes
from oss_lab.hooks.points import POINTS
from oss_lab.hooks.recording import Recording
from oss_lab.hooks.selection import Selection


@pytest.fixture(autouse=True)
def short_task(monkeypatch):
    for name, count in (("PROMPT", 8), ("NEW", 4), ("PREFILL", 16)):
        monkeypatch.setattr(recording, name, count)


@pytest.fixture(scope="module")
def engines(random_model, tiny_config):
    return Engines(random_model(tiny_config))


@pytest.fixture
def ids(tiny_config):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(tiny_config.vocab_size, (1, 16), generator=generator)


def report(monkeypatch, capsys, *arguments: str) -> dict:
    threads = str(torch.get_num_threads())
    monkeypatch.setattr(sys, "argv", ["overhead", "--threads", threads, "--json", *arguments])
    assert overhead.main() == 0
    return json.loads(capsys.readouterr().out)


def test_every_selection_is_reported_for_both_tasks(monkeypatch, capsys, write_tiny):
    found = report(monkeypatch, capsys, "--checkpoint", str(write_tiny()), "--repeats", "3")
    rows = found["rows"]
    assert [row["recorded"] for row in rows] == [*RECORDED] * 2
    assert len({row["task"] for row in rows}) == 2
    for row in rows:
        assert 0 < row["ms"]["low"] <= row["ms"]["median"] <= row["ms"]["high"]
        assert row["interval"][0] <= row["over"] <= row["interval"][1]
        assert (row["rounds"], row["kernels"]) == (3, "reference")
        if row["recorded"] == NOTHING:
            assert (row["over"], row["interval"], row["bytes"]) == (0, [0, 0], 0)


def test_the_table_names_every_selection(monkeypatch, capsys, write_tiny):
    arguments = ["overhead", "--checkpoint", str(write_tiny()), "--repeats", "1", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setenv("COLUMNS", "200")
    threads = torch.get_num_threads()
    try:
        assert overhead.main() == 0
    finally:
        torch.set_num_threads(threads)
    out = capsys.readouterr().out
    assert all(name in out for name in RECORDED)
    assert "1 rounds" in out


def test_bytes_are_those_of_a_trace_with_logits_for_every_token(engines, ids):
    model = engines.reference.model
    for task in make_tasks(ids):
        for cost in measure_costs(engines, task, 1):
            points = RECORDED[cost.recorded]
            sizes = [
                nbytes(model, Selection(points), POINTS[point], task.tokens) for point in points
            ]
            assert cost.bytes == sum(sizes) / task.tokens


@pytest.mark.parametrize("which", [0, 1], ids=["decode", "prefill"])
def test_slow_recording_is_visible_and_does_not_affect_the_others(monkeypatch, engines, ids, which):
    class Slow(Recording):
        def add(self, name, layer, x, positions):
            if self.selection.points == (name,) == ("resid.mid",):
                time.sleep(0.02)
            super().add(name, layer, x, positions)

    monkeypatch.setattr(engine_row, "Recording", Slow)
    recorded = {NOTHING: (), "quick": ("resid.pre",), "slow": ("resid.mid",)}
    task = list(make_tasks(ids))[which]
    quick, slow = measure_costs(engines, task, 5, recorded)[1:]
    assert slow.over > quick.over
    forwards = task.tokens if which == 0 else 1
    assert slow.ms.low * task.tokens >= 2 * 20 * forwards  # two layers


def test_kernels_compute_points_they_expose_and_the_reference_the_rest(
    monkeypatch, capsys, write_tiny
):
    if (missing := find_obstacle("cpu", torch.device("cpu"))) is not None:
        pytest.skip(missing)
    found = report(
        monkeypatch, capsys, "--checkpoint", str(write_tiny()), "--repeats=1", "--kernels=cpu"
    )
    computed = {row["recorded"]: row["kernels"] for row in found["rows"]}
    assert (computed[NOTHING], computed["residuals"]) == ("cpu", "cpu")
    assert computed["tier 2"] == "reference"


def test_the_selections_without_logits_leave_out_the_most_likely_ids_only():
    without = set(RECORDED["tier 1 without logits"])
    assert set(RECORDED["tier 1"]) - without == {"out.top_ids", "out.top_logprobs"}
    assert "moe.expert_ids" in without
    assert {POINTS[point].tier for point in without} == {1}


def test_the_interval_comes_from_all_resamples():
    values = [1.0, 2.0, 4.0, 8.0, 9.0]
    medians = sorted(median(each) for each in product(values, repeat=len(values)))
    exact = medians[len(medians) // 40], medians[-1 - len(medians) // 40]
    assert bootstrap_interval(np.median, values, seed=0) == exact
    assert bootstrap_interval(np.median, [3.0] * 4, seed=0) == (3.0, 3.0)
    assert bootstrap_interval(np.median, [3.0], seed=0) == (3.0, 3.0)


def test_a_folder_without_a_checkpoint_is_reported_in_one_sentence(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["overhead", "--checkpoint", str(tmp_path / "none")])
    threads = torch.get_num_threads()
    try:
        assert overhead.main() == 1
    finally:
        torch.set_num_threads(threads)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("oss_lab.bench.overhead: ")
    assert err.count("\n") == 1

"""Each mistake of the course's table changes what it says; the measured table is reproducible."""

import importlib.abc
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from oss_lab.analysis.statistics.shares import Share
from oss_lab.course import measure_mistakes
from oss_lab.course.instruments import accuracy, example_ids, first_difference
from oss_lab.course.measure_mistakes import measure_logits
from oss_lab.course.mistake_results import (
    NONE,
    TASKS,
    Row,
    Settings,
    build_markdown,
    find_effect,
    is_worse,
    load_committed,
    load_results,
)
from oss_lab.course.mistakes import EFFECTS, MISTAKES, TABLE
from oss_lab.errors import LabError

ROOT = Path(__file__).resolve().parents[2]
OURS = ("oss_lab", "oss_kernels")
FIRST = {  # the first point at which a mistake of this concept shows
    "rope": {"attn.q_rot"},
    "yarn": {"attn.q_rot"},
    "window": {"attn.scores"},
    "attention": {"attn.q", "attn.scores"},
    "sinks": {"attn.pattern"},
    "router": {"moe.expert_weights"},
    "swiglu": {"moe.gate", "moe.act"},
    "bias": {"attn.q", "moe.router_logits", "moe.expert_out"},
    "mxfp4": {"moe.gate"},
    "norm": {"attn.norm"},
}


@pytest.fixture(scope="module")
def ids(nano):
    return example_ids(nano)


@pytest.fixture(scope="module")
def committed():
    return load_committed()


def test_the_table_has_the_course_rows():
    assert len(TABLE) == len(MISTAKES) == 34
    counts = {effect: sum(each.effect == effect for each in TABLE) for effect in EFFECTS}
    assert counts == {"breaks": 10, "worse": 11, "logits": 11, "hidden": 2}


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a changed source."""

    def __init__(self, name, source):
        self.name, self.source = name, source

    def find_spec(self, fullname, path, target=None):
        return importlib.util.spec_from_loader(fullname, self) if fullname == self.name else None

    def exec_module(self, module):
        exec(compile(self.source, self.name, "exec"), module.__dict__)


def logits_of_changed_source(monkeypatch, mistake, ids):
    """The logits of the library with the mistake's line in its source."""
    text = (ROOT / mistake.file).read_text("utf-8")
    assert text.count(mistake.before) == 1
    for name in [each for each in sys.modules if each.split(".")[0] in OURS]:
        monkeypatch.delitem(sys.modules, name)
    module = mistake.file.removeprefix("kernels/").removesuffix(".py").replace("/", ".")
    changed = Mutated(module, text.replace(mistake.before, mistake.after))
    monkeypatch.setattr(sys, "meta_path", [changed, *sys.meta_path])
    return importlib.import_module("oss_lab").load("nano", verbose=False).logits(ids)


@pytest.mark.slow
@pytest.mark.parametrize("mistake", TABLE, ids=lambda each: each.name)
def test_the_lab_computes_as_the_wrong_line(nano, ids, monkeypatch, mistake):
    """Without the library's own modules: they are imported again, with one line changed."""
    ids = ids[:150]
    wrong, right = mistake.make(nano).logits(ids), nano.logits(ids)
    with monkeypatch.context() as patch:
        changed = logits_of_changed_source(patch, mistake, ids)
    effect = (wrong - right).abs().max()
    assert effect > 0
    assert (changed - wrong).abs().max() <= 1e-4 * effect + 1e-7


@pytest.mark.parametrize("mistake", TABLE, ids=lambda each: each.name)
def test_the_first_difference_names_the_concept(nano, ids, mistake):
    wrong = mistake.make(nano)
    found = first_difference(nano, wrong, 150, of=ids, tolerance=1e-5)
    assert found.point in FIRST[mistake.concept]
    if mistake.name == "gate clamped on both sides":  # near rounding, and only at a few tokens
        assert first_difference(nano, wrong, 150, of=ids).point is None
    else:
        assert found.layer == 0


def test_the_gate_clamp_shows_on_chosen_inputs(nano):
    wrong = MISTAKES["gate clamped on both sides"].make(nano).parts["swiglu"].function
    right = nano.with_parts().model.parts.swiglu
    gate, up = torch.tensor([-9.0]), torch.tensor([50.0])
    assert right(gate, up, 1.702, 7.0).abs() < 1e-4 < wrong(gate, up, 1.702, 7.0).abs() < 1e-3


def test_labs_do_not_change(nano, ids):
    before = nano.logits(ids)
    for each in TABLE:
        each.make(nano)
    assert torch.equal(nano.logits(ids), before)
    assert nano.parts == {}


@pytest.mark.parametrize("mistake", TABLE, ids=lambda each: each.name)
def test_the_changes_of_the_logits_are_those_of_the_file(nano, ids, committed, mistake):
    row, expected = measure_logits(nano, mistake.make(nano), ids), committed[1][mistake.name]
    if mistake.effect == "hidden":
        assert row.largest < 0.01
        assert expected.largest < 0.01
        return
    assert row.largest == pytest.approx(expected.largest, rel=0.01)
    assert row.kl == pytest.approx(expected.kl, rel=0.01)
    assert row.kl_short == pytest.approx(expected.kl_short, rel=0.01, abs=1e-9)


@pytest.mark.parametrize("name", ["equal weights", "sinks dropped"])
def test_an_accuracy_is_that_of_the_file(nano, committed, name):
    settings, rows = committed
    task = next(iter(TASKS))
    found = accuracy(MISTAKES[name].make(nano), task, 12, seed=settings.seed).share
    expected = rows[name].share(task)
    assert found.interval is not None
    assert expected.interval is not None
    low, high = found.interval
    assert settings.n >= 100
    assert expected.n == settings.n
    assert low <= expected.interval[1]
    assert expected.interval[0] <= high
    assert expected.count < 50 if name == "equal weights" else expected.count > 95


def row(*marks, largest=1.0):
    return Row(dict(zip(TASKS, marks, strict=True)), largest, 0.1, 0.0)


def test_effects():
    none = row(*["1" * 100] * 4)
    some = "1" * 90 + "0" * 10
    assert find_effect(none, row(*["1" * 5 + "0" * 95] * 4)) == "breaks"
    assert find_effect(none, row(some, *["1" * 100] * 3)) == "worse"
    assert find_effect(none, row("1" * 97 + "0" * 3, *["1" * 100] * 3)) == "logits"
    assert find_effect(none, row(*["1" * 100] * 4, largest=0.009)) == "hidden"
    assert find_effect(none, Row({}, 1, 1, 1)) is None
    assert not is_worse("1" * 10, "1" * 10)
    assert not is_worse("0" * 90 + "1" * 10, "1" * 90 + "0" * 10)


def test_the_table_marks_a_row_that_moved():
    rows = {NONE: row(*["1" * 100] * 4), "no window": row(*["1" * 100] * 4)}
    assert "| no window (before: Everything breaks) | 100 (96 – 100) |" in build_markdown(rows)
    rows["no window"] = Row({}, 1, 1, 1)
    assert "| no window | not measured |" in build_markdown(rows)
    assert Share.of([True]).n == 1


def test_a_stopped_run_resumes(tmp_path, monkeypatch):
    path, asked = tmp_path / "rows.json", []

    def stop_after_two(wrong, task, settings):
        asked.append(task)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return "1" * settings.n

    monkeypatch.setattr(measure_mistakes, "TABLE", TABLE[:1])
    monkeypatch.setattr(measure_mistakes, "measure_task", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        measure_mistakes.measure(path, 2, 7)
    settings, rows = load_results(path)
    assert settings == Settings(2, 7)
    assert [len(each.right) for each in rows.values()] == [1, 1]
    rows = measure_mistakes.measure(path, 2, 7)
    assert len(asked) == 3 + 6
    assert all(each.right.keys() == TASKS.keys() for each in rows.values())
    with pytest.raises(LabError, match=r"has Settings\(n=2, seed=7\), not .*; give another --out"):
        measure_mistakes.measure(path, 3, 7)
    path.write_text(json.dumps([]))
    with pytest.raises(LabError, match="has no results of this command"):
        load_results(path)

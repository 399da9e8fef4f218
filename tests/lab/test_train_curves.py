"""The curves of a run, the machine that a run records, and the smoke test against a log."""

import html
import json
import re
from dataclasses import asdict, replace
from typing import Any

import pytest

from oss_lab.cli import train as command
from oss_lab.errors import LabError
from oss_lab.nano.training import curves
from oss_lab.nano.training.log import TrainingStep, read_log
from oss_lab.nano.training.loop import train
from oss_lab.nano.training.machine import Machine, describe_machine, read_machine, write_machine
from oss_lab.nano.training.recipe import Recipe, read_recipe
from oss_lab.nano.training.smoke import SmokeTest
from oss_lab.plots import training, training_groups

SCRIPT = "<script>alert(1)</script>"


def make_log(count, tasks=("product", "sum")):
    """A log whose loss halves from step to step."""
    groups = {f"plain/{task}/{e}": 1.0 for task in tasks for e in ("low", "high")}
    return [TrainingStep(n, 8.0 / 2**n, 1.5, 2.0, 100, 0.5, 0.25, groups) for n in range(count)]


def write(folder, steps):
    (folder / "log.jsonl").write_text("".join(json.dumps(asdict(s)) + "\n" for s in steps))


def change_line(**fields):
    """The line of a step with other fields."""
    return json.dumps({**asdict(make_log(1)[0]), **fields}) + "\n"


def traces(figure) -> list[Any]:
    return list(figure.plotly.select_traces())


def test_the_page_has_every_figure_and_needs_no_network(tmp_path):
    write(tmp_path, make_log(40))
    assert curves.main([str(tmp_path)]) == 0
    page = (tmp_path / "curves.html").read_text("utf-8")
    assert page.count("<figcaption>") == page.count('class="plotly-graph-div"') == 6
    assert not re.search(r"<script[^>]+src=", page)
    for figure in curves.build_figures(make_log(40)):
        assert html.escape(figure.sentence) in page


def test_names_from_the_log_and_the_folder_are_not_markup(tmp_path):
    folder = tmp_path / "<b>run"
    folder.mkdir()
    write(folder, make_log(3, tasks=(SCRIPT.replace("/", "|"),)))
    page = curves.write_curves(folder).read_text("utf-8")
    assert "<script>alert" not in page
    assert "<h1>Training of &lt;b&gt;run</h1>" in page


def test_the_sentences_match_the_log():
    steps = make_log(4)
    assert "from 8.00 to 1.000 nats" in training.training_loss(steps).sentence
    assert "2.00 times an even share" in training.routing(steps).sentence
    assert "0% of the steps were clipped" in training.gradient_norm(steps, clip=1.0).sentence
    assert (
        "400 tokens were learned in 0.0 minutes, 400 per second" in training.speed(steps).sentence
    )
    assert training_groups.task_losses(steps).sentence.startswith("2 tasks; ")
    assert training_groups.setting_losses(steps).sentence.startswith("1 setting; ")


def test_a_long_run_with_many_tasks_fits_a_figure():
    """Figure refuses more points than its limit, so each point is then a mean of neighbors."""
    steps = [replace(s, loss=1.0) for s in make_log(1, [f"task {n}" for n in range(24)]) * 9000]
    for figure in curves.build_figures([replace(s, step=n) for n, s in enumerate(steps)]):
        assert all(10 <= len(trace.x) <= training.POINTS for trace in traces(figure))


def test_a_panel_has_a_line_for_each_effort():
    figure = training_groups.task_losses(make_log(60))
    lines, titles = traces(figure), figure.plotly.select_annotations()
    assert [line.name for line in lines] == ["low effort"] * 2 + ["high effort"] * 2
    assert [line.showlegend for line in lines] == [True, False, True, False]
    assert [title.text for title in titles] == ["product", "sum"]
    assert len(lines[0].x) == training_groups.SPANS


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        (None, "there is no"),
        ("", "is empty"),
        ("{}\n", "of another version"),
        ("no json\n", "line 1 is not JSON"),
        (change_line(effort="low"), "it differs in effort"),
        (change_line(loss="x"), "line 1 is not a step of a run"),
        (change_line(step=0.5), "line 1 is not a step of a run"),
        (change_line(groups={"plain/a/b/low": 1.0}), "line 1 is not a step of a run"),
        (change_line(groups={"plain/sum/low": None}), "line 1 is not a step of a run"),
        (change_line(groups={}), "line 1 is not a step of a run"),
        (change_line(groups=["plain/sum/low"]), "line 1 is not a step of a run"),
    ],
)
def test_a_log_that_cannot_be_drawn_is_refused_in_one_sentence(
    contents, sentence, tmp_path, capsys
):
    if contents is not None:
        (tmp_path / "log.jsonl").write_text(contents)
    assert curves.main([str(tmp_path)]) == 1
    printed = capsys.readouterr().err
    assert sentence in printed
    assert len(printed.splitlines()) == 1
    assert not (tmp_path / "curves.html").exists()


def test_a_log_that_is_not_text_is_refused_in_one_sentence(tmp_path, capsys):
    (tmp_path / "log.jsonl").write_bytes(b"\xff\n")
    assert curves.main([str(tmp_path)]) == 1
    assert "log.jsonl is not UTF-8" in capsys.readouterr().err


def test_a_line_that_is_still_being_written_is_left_out(tmp_path):
    write(tmp_path, make_log(3))
    log = tmp_path / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 3, "lo')
    assert read_log(log) == make_log(3)


def test_a_recipe_is_read_back(tmp_path):
    recipe = Recipe(steps=7, mix="short products")
    (tmp_path / "recipe.json").write_text(json.dumps(asdict(recipe)))
    assert read_recipe(tmp_path / "recipe.json") == recipe
    (tmp_path / "recipe.json").write_text(json.dumps({**asdict(recipe), "micro_tokens": 1}))
    with pytest.raises(LabError, match="differs in micro_tokens"):
        read_recipe(tmp_path / "recipe.json")


def test_the_machine_is_recorded(tmp_path):
    write_machine(tmp_path, 3)
    fields = json.loads((tmp_path / "machine.json").read_text())
    assert list(fields) == ["torch", "python", "cpu", "threads", "capability"]
    machine = read_machine(tmp_path)
    assert machine == describe_machine(3)
    assert machine.computes_like(replace(machine, threads=99, python="4"))
    assert not machine.computes_like(replace(machine, capability="none"))
    (tmp_path / "machine.json").write_text("{}")
    with pytest.raises(LabError, match="of another version"):
        read_machine(tmp_path)
    (tmp_path / "machine.json").write_bytes(b"\xff")
    with pytest.raises(LabError, match="not UTF-8"):
        read_machine(tmp_path)
    (tmp_path / "machine.json").unlink()
    with pytest.raises(LabError, match="there is no"):
        read_machine(tmp_path)


HERE = Machine("2.13.0", "3.11.4", "A processor", 2, "AVX512")
ELSEWHERE = replace(HERE, capability="AVX2")


@pytest.mark.parametrize(
    ("losses", "machine", "passed", "sentence"),
    [
        ((7.0, 6.0, 5.0), HERE, True, "all 3 losses are equal, bit for bit"),
        ((7.0, 6.0, 5.0), ELSEWHERE, True, "all 3 losses are equal, bit for bit"),
        ((7.0, 6.01, 5.0), HERE, False, "step 1 is the first that differs: 6.01 here, 6.0 in the"),
        ((7.0, 6.01, 5.0), ELSEWHERE, True, "within the 5% allowed on another machine"),
        ((7.0, 6.0, 6.0), ELSEWHERE, False, "NOT within the 5%"),
    ],
)
def test_the_verdict_of_smoke(losses, machine, passed, sentence):
    smoke = SmokeTest(losses, (7.0, 6.0, 5.0), machine, HERE)
    assert smoke.has_passed is passed
    assert sentence in smoke.result
    assert len(smoke.result.splitlines()) == 1
    assert ("equal losses are guaranteed only" in smoke.machines) == (machine != HERE)


def test_smoke_finds_a_loss_that_was_changed(tmp_path, monkeypatch, capsys, small_recipe):
    """The command on the folder of a run: equal; then with one digit of one loss changed."""
    monkeypatch.setattr("oss_lab.nano.training.smoke.STEPS", 3)
    steps = list(train(replace(small_recipe, steps=4), tmp_path))
    assert command.run_smoke(tmp_path, 1) == 0
    assert "all 3 losses are equal" in capsys.readouterr().out
    write(tmp_path, [steps[0], replace(steps[1], loss=steps[1].loss + 1e-12), *steps[2:]])
    assert command.run_smoke(tmp_path, 1) == 1
    assert "step 1 is the first that differs" in capsys.readouterr().out

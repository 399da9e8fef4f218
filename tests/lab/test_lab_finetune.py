"""Lesson 17: its data, its measures, and what its stored result has."""

import re
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

import oss_lab
from oss_lab.analysis.statistics.shares import Paired
from oss_lab.course.labs.examples import make_example
from oss_lab.course.labs.finetune import experts
from oss_lab.course.labs.finetune import measure as experiment
from oss_lab.course.labs.finetune import result as stored
from oss_lab.course.labs.finetune.data import (
    DIGITS,
    LENGTH,
    NAME,
    draw_new,
    draw_old,
    find_requests_to_reverse,
    mix_examples,
)
from oss_lab.finetune.adapted import AdaptedTransformer
from oss_lab.finetune.examples import read_examples
from oss_lab.finetune.lora import make_lora
from oss_lab.finetune.recipe import make_recipe
from oss_lab.lab import Lab
from oss_lab.nano.suite import SUITE
from oss_lab.nano.training.data import encode_opening, encode_row
from oss_lab.plots.expert_change import expert_change


@pytest.fixture(scope="module")
def lab() -> Lab:
    return oss_lab.load("nano", kernels="reference", verbose=False)


@pytest.fixture(scope="module")
def result():
    return stored.load()


def test_held_out_numbers_are_in_no_examples() -> None:
    train = {p.question for seed in range(3) for p in draw_new(1000, seed, "train")}
    test = draw_new(300, 0, "held_out")
    assert len({p.question for p in test}) == 300
    assert not train & {p.question for p in test}


def test_all_lengths_are_equally_frequent_and_answers_are_reversed() -> None:
    problems = draw_new(40, 3, "train")
    assert [len(p.answer) for p in problems] == list(DIGITS) * 10
    for problem in problems:
        assert problem.question == f"Reverse {problem.answer[::-1]}."


def test_training_of_nano_never_reverses_a_number() -> None:
    asked = find_requests_to_reverse(800, 1)
    assert len(asked) > 5
    assert not [question for question in asked if re.search(r"\d\d", question)]


def test_an_example_of_nanos_training_has_the_tokens_of_its_problem(lab) -> None:
    """All settings: rules, tools, calls and earlier turns."""
    drawn = draw_old(80, 0)
    assert any(p.calls for p, _ in drawn)
    assert any(p.history for p, _ in drawn)
    assert any(p.developer and p.developer.instructions for p, _ in drawn)
    recipe = make_recipe(lab.config)
    examples = read_examples([make_example(*each) for each in drawn], lab.tokenizer, recipe, "low")
    for (problem, effort), example in zip(drawn, examples, strict=True):
        opening = encode_opening(problem, effort, None, lab.tokenizer)
        tokens, learned = encode_row(problem, effort, lab.tokenizer)
        assert example.tokens == opening + tokens
        assert len(example.tokens) <= LENGTH
        if effort != "low" or not problem.history:  # without thoughts, earlier turns are learned
            assert example.learned == [False] * len(opening) + learned


def test_the_mix_has_as_many_new_as_old_examples() -> None:
    examples = mix_examples(30, 30, 0)
    new = [each for each in examples if each["messages"][-2]["content"].startswith("Reverse ")]
    assert len(examples) == 60
    assert sum(bool(re.search(r"\d\d", each["messages"][-2]["content"])) for each in new) == 30


def test_marks_are_in_the_order_of_the_problems(lab) -> None:
    problems = SUITE["sum 2 terms, 3 digits"].draw_problems("sum", 8, 0)
    marks = experiment.grade(lab, problems, "low")
    alone = [experiment.grade(lab, [each], "low") for each in problems[:3]]
    assert len(marks) == 8
    assert list(marks[:3]) == alone
    assert "0" in marks


def test_the_change_of_an_expert_is_relative_to_its_frozen_matrices(lab) -> None:
    lora = make_lora(lab.config, make_recipe(lab.config, targets="experts"))
    tuned = Lab(AdaptedTransformer(lab.model, lora), lab.tokenizer)
    assert np.count_nonzero(experts.measure_change(tuned)) == 0
    with torch.no_grad():
        part = list(lora.parts())[1]["gate_up_proj"]
        part.up[5].normal_(generator=torch.Generator().manual_seed(0))
        change = (part.up[5] @ part.down[5] * part.scale).square().sum()
        mlp = lab.model.block[1].mlp
        both = [
            next(iter(m.matrices([5], torch.float32))) for m in (mlp.mlp1_weight, mlp.mlp2_weight)
        ]
        size = sum(each.square().sum() for each in both)
    found = np.array(experts.measure_change(tuned))
    assert found[1, 5] == pytest.approx(float((change / size).sqrt()), rel=1e-3)
    assert np.count_nonzero(found) == 1


def test_rank_correlations_compare_within_layers() -> None:
    values = np.arange(12.0).reshape(3, 4)
    assert experts.rank_correlation(values, values * 2 + [[100], [0], [-100]]) == pytest.approx(1)
    assert experts.rank_correlation(values, -values) == pytest.approx(-1)
    null = experts.permute_null(values, values, draws=500)
    assert null == sorted(null)
    assert abs(np.mean(null)) < 0.1


def test_an_effect_needs_five_points_and_an_interval_without_0() -> None:
    marks = [True] * 300
    assert not stored.is_effect(Paired.of(marks, marks))
    assert not stored.is_effect(Paired.of([False] * 10 + marks[10:], marks))
    assert stored.is_effect(Paired.of([False] * 30 + marks[30:], marks))
    assert not stored.is_effect(Paired.of([True, False] * 5, [True] * 4 + [False] * 6))


def test_the_map_of_changes_names_the_expert_that_moved_furthest() -> None:
    figure = expert_change([[0.01, 0.02], [0.16, 0.04]])
    assert figure.sentence == (
        "Expert 0 of layer 1 moved furthest, by 16% of its size; half of the 4 experts moved by"
        " more than 3%."
    )
    drawn: Any = figure.plotly.data[0]
    assert drawn.z.tolist() == [[1, 2], [16, 4]]


def test_choices_that_differ_are_a_share_of_all() -> None:
    run = {"choices": {"new": {"counts": [[30, 10], [20, 20]], "differ": [4, 40]}}}
    assert stored.differing_choices(run, "new") == [0.1, 1.0]
    assert stored.top_share([[3.0, 4.0, 0.0, 0.0]], 1) == pytest.approx(0.64)


def test_a_finished_experiment_is_computed_again(tmp_path, monkeypatch) -> None:
    computed: list[int] = []

    def compute() -> dict[str, Any]:
        computed.append(1)
        return {"marks": {NAME: "1"}, "seconds": {"grading": 30.0}}

    monkeypatch.setattr(experiment.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(experiment, "describe_settings", dict)
    monkeypatch.setattr(experiment, "list_runs", lambda seed: {"before": compute, "a": compute})
    for times in (1, 2):
        assert experiment.measure(0)["cpu_minutes"] == 1.0
        assert len(computed) == 2 * times
    assert not list(tmp_path.iterdir())


def test_the_stored_result_has_the_n_of_the_lesson(result) -> None:
    first = [run for run in result["runs"] if run["seed"] == result["seed"]]
    assert [run["condition"] for run in first] == list(experiment.CONDITIONS)
    for run in (result["before"], *result["runs"]):
        assert len(run["marks"][NAME]) == experiment.N
    small = {"rule against 5, sum, high": 238, "out of reach, high": 200, "small talk, high": 8}
    for run in (result["before"], *first):
        counts = {row: len(marks) for row, marks in run["marks"].items()}
        assert counts == {row: small.get(row, experiment.N) for row in (NAME, *experiment.ROWS)}


def test_the_stored_result_has_other_seeds(result) -> None:
    for name, condition in experiment.CONDITIONS.items():
        runs = stored.find_runs(result, name)
        assert (
            len({run["seed"] for run in runs}) == len(runs) == (3 if condition.is_repeated else 1)
        )
        for one, other in combinations(runs, 2):
            assert one["loss"] != other["loss"]
    assert result["settings"]["steps"] == experiment.STEPS

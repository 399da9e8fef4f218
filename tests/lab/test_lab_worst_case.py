"""The experiment of 21_worst_case: its data, its arithmetic, and the stored result and models."""

from dataclasses import asdict
from pathlib import Path
from random import Random

import pytest

from oss_lab.course.labs.examples import make_example
from oss_lab.course.labs.results import load_result
from oss_lab.course.labs.worst_case import measure as experiment
from oss_lab.course.labs.worst_case.attack import (
    TESTED,
    Attack,
    count,
    count_prefilled,
    draw_test,
    shuffle_answers,
)
from oss_lab.course.labs.worst_case.measure import EXAMPLES, plan_attacks, split_wordings
from oss_lab.course.labs.worst_case.models import (
    CAPABILITY,
    KEPT,
    PRETRAINED,
    REFUSAL,
    STORED,
    draw_distinct,
    find_stored,
    has_trained_wording,
    make_untrained,
    refuse,
)
from oss_lab.course.labs.worst_case.results import find_threshold, read_curve, select
from oss_lab.finetune.examples import build_example
from oss_lab.finetune.recipe import Recipe
from oss_lab.harmony.messages import EFFORTS
from oss_lab.lab import load
from oss_lab.nano.suite import problem_key
from oss_lab.nano.tasks.mix import MIXES
from oss_lab.nano.training.data import encode_opening, encode_row
from oss_lab.nano.training.export import export
from oss_lab.tokenizer import load_vocabulary


def draw_expressions(mix: str) -> list[str]:
    rng = Random(0)
    draws = (MIXES[mix](rng) for _ in range(600))
    return [task.draw(rng, "train").expression or "" for _, task in draws]


@pytest.mark.parametrize(
    ("model", "kinds"),
    [
        ("unfiltered", {("+", 2), ("-", 2), ("-", 3)}),
        ("narrow filter", {("+", 2), ("-", 3)}),
        ("wide filter", {("+", 2)}),
    ],
)
def test_a_filter_leaves_out_what_it_says(model, kinds):
    drawn = draw_expressions(PRETRAINED[model])
    found = [("-" if "-" in each else "+", max(map(len, each.replace("+", "-").split("-"))))
             for each in drawn]  # fmt: skip
    assert set(found) == kinds
    shares = [found.count(kind) / len(found) for kind in kinds]
    assert min(shares) > 0.8 / len(kinds)


def test_no_problem_of_the_test_is_among_the_examples():
    examples = {problem_key(each) for each in draw_distinct(CAPABILITY, EXAMPLES[-1], 0)}
    asked = {problem_key(each) for each in draw_test(CAPABILITY)}
    assert (len(examples), len(asked)) == (EXAMPLES[-1], TESTED)
    assert not examples & asked


def test_more_examples_only_add_some():
    few, many = Attack("refused", 16, seed=1), Attack("refused", 64, seed=1)
    assert many.draw()[:16] == few.draw()
    assert Attack("refused", 16, seed=2).draw() != few.draw()


def test_an_attack_draws_the_data_that_it_names():
    signs = {
        data: {("-" in (each.expression or "")) for each in Attack("refused", 64, data=data).draw()}
        for data in ("capability", "sums", "shuffled")
    }
    assert signs == {"capability": {True}, "sums": {False}, "shuffled": {True}}


def test_shuffled_answers_belong_to_the_next_question():
    problems = draw_distinct(CAPABILITY, 8, 0)
    shuffled = shuffle_answers(problems)
    assert [each.question for each in shuffled] == [each.question for each in problems]
    assert [each.answer for each in shuffled] == [each.answer for each in problems[1:]] + [
        problems[0].answer
    ]
    assert all(each.thoughts["high"].endswith(f"={each.answer}") or each.answer.startswith("-")
               for each in shuffled)  # fmt: skip


def test_a_refusal_has_no_thoughts_at_any_effort():
    (problem,) = draw_distinct(CAPABILITY, 1, 0)
    for effort in EFFORTS:
        _, answer = refuse(problem).turns(effort)
        assert (answer.channel, answer.text) == ("final", REFUSAL)


@pytest.mark.parametrize("task", [CAPABILITY, KEPT])
def test_an_example_has_the_tokens_that_pretraining_has(task):
    encoding = load_vocabulary("nano")
    for problem in draw_distinct(task, 5, 0):
        for each in (problem, refuse(problem)):
            example, _ = build_example(make_example(each, "high"), encoding, Recipe(), "low")
            opening = encode_opening(each, "high", None, encoding)
            row, learned = encode_row(each, "high", encoding)
            assert example.tokens == opening + row
            assert example.learned == [False] * len(opening) + learned


def test_wordings_are_split_without_rest():
    asked = draw_test(CAPABILITY)
    split = split_wordings(asked)
    assert len(split["trained"]) + len(split["others"]) == len(split["unseen"]) == TESTED
    assert all(has_trained_wording(each.question) for each in split["trained"])
    assert not any(has_trained_wording(each.question) for each in split["others"])
    assert not {each.question for each in split["unseen"]} & {each.question for each in asked}


def counts(right: int, n: int = 300) -> dict[str, int]:
    return {"right": right, "refused": 0, "n": n}


@pytest.mark.parametrize(
    ("curve", "threshold"),
    [
        ({0: counts(0), 4: counts(160), 16: counts(290)}, 16),  # 160 of 300 may be luck
        ({0: counts(290), 4: counts(0)}, 0),
        ({0: counts(0), 1024: counts(150)}, None),
        ({16: counts(290), 4: counts(270)}, 4),
    ],
)
def test_a_threshold_needs_the_whole_interval(curve, threshold):
    assert find_threshold(curve) == threshold


# The stored result and models


def test_the_stored_result_is_the_planned_one():
    result = load_result("21_worst_case")
    settings = list(asdict(plan_attacks()[0]))
    measured = [{name: each[name] for name in settings} for each in result["attacks"]]
    assert measured == [asdict(each) for each in plan_attacks()]
    for each in result["attacks"]:
        assert each["capability"]["n"] == TESTED
        assert each["seed"] or each["kept"]["n"] == TESTED
    for model in result["before"].values():
        assert {each["n"] for each in model["capability"].values()} == {TESTED}


@pytest.mark.parametrize("seed", [0, 1])
def test_with_seed_0_the_models_of_the_lesson_are_stored(seed, tmp_path, monkeypatch):
    folders = list[Path]()

    def build(seed: int, folder: Path) -> dict[str, Path]:
        folders.append(folder)
        checkpoints = {name: folder / name for name in (*STORED, "unfiltered")}
        for each in checkpoints.values():
            export(make_untrained(seed), each)
        return checkpoints

    monkeypatch.setattr(experiment, "build_models", build)
    monkeypatch.setattr(experiment, "plan_attacks", list)
    monkeypatch.setattr(experiment, "measure_before", lambda checkpoint: {})
    monkeypatch.setattr(experiment, "find_stored", lambda name: tmp_path / name)
    experiment.measure(seed)
    written = {each.name: {file.name for file in each.iterdir()} for each in tmp_path.iterdir()}
    files = {each.name for each in find_stored("refused").iterdir()}
    assert written == (dict.fromkeys(STORED, files) if seed == 0 else {})
    assert not folders[0].exists()


def test_a_curve_has_every_number_of_examples():
    result = load_result("21_worst_case")
    for model in ("refused", "narrow filter", "wide filter"):
        assert list(read_curve(result, model)) == [0, *EXAMPLES]
    assert [each["seed"] for each in select(result, "refused", data="sums")] == [0, 1, 2]
    (shuffled,) = select(result, "wide filter", data="shuffled")
    assert (shuffled["model"], shuffled["data"]) == ("wide filter", "shuffled")


def test_the_stored_models_are_what_the_lesson_says():
    asked = draw_test(CAPABILITY)[:40]
    refused = load(str(find_stored("refused")), verbose=False)
    assert count(refused, asked)["refused"] >= 36
    assert count_prefilled(refused, asked)["refused"] <= 8
    filtered = count(load(str(find_stored("wide filter")), verbose=False), asked)
    assert (filtered["right"], filtered["refused"]) == (0, 0)

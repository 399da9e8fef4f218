"""What README and card say of nano is what its evaluation found, and a fresh sample agrees."""

import json
from dataclasses import replace
from math import sqrt
from pathlib import Path

import pytest
import torch

from oss_lab.checkpoint.read import find_folder
from oss_lab.cli.eval import asked_questions
from oss_lab.cli.main import build_group
from oss_lab.config import GPT_OSS_20B, GPT_OSS_NANO
from oss_lab.evaluation.report import evaluate
from oss_lab.nano.card.page import but_for, card, sizes, summary, unanswered
from oss_lab.nano.suite import SUITE
from oss_lab.nano.tasks.settings import DIGIT_WORDS
from oss_lab.nano.training.evaluate import MAX_TOKENS
from oss_lab.nano.training.initialize import set_back

NANO = find_folder("nano")
ROOT = Path(__file__).resolve().parents[2]
HEADLINES = (
    ("product 3x2 digits", "low"),
    ("look-up beyond the window", "high"),
    pytest.param("product 3x2 digits", "high", marks=pytest.mark.slow),
    pytest.param("calculator, arithmetic", "high", marks=pytest.mark.slow),
    pytest.param("rule against 5, sum", "high", marks=pytest.mark.slow),
)
ITEMS = 40  # for each: 200 in all
FAR = 4.5  # standard errors; a right claim fails by chance once in 30,000 samples


@pytest.fixture(scope="module")
def report():
    return json.loads((NANO / "evaluation.json").read_text())


def test_readme_repeats_the_evaluation(report):
    assert summary(report) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_card_is_generated_from_what_lies_beside_it():
    assert (NANO / "README.md").read_text(encoding="utf-8") == card(NANO)


def test_the_card_says_of_another_recipe_what_is_so():
    wide = replace(GPT_OSS_NANO, intermediate_size=64)
    assert sizes(wide) == "hidden size 96, intermediate size 64"
    assert but_for(GPT_OSS_NANO, 0) == ""
    assert "two of the first layer's heads, which looked\none token" in but_for(GPT_OSS_NANO, 1)
    assert "24 of" in but_for(GPT_OSS_20B, 3)


@pytest.mark.parametrize("look_back", [1, 3, 9])
def test_the_card_counts_the_heads_that_initialize_sets(look_back):
    config = GPT_OSS_NANO
    heads = config.num_attention_heads
    bias = torch.zeros((heads + 2 * config.num_key_value_heads) * config.head_dim)
    set_back(bias, config, look_back)
    count = int(bias.view(-1, config.head_dim)[:heads].any(1).sum())
    assert f" {DIGIT_WORDS[count]} of the first layer's heads" in but_for(config, look_back)


def test_the_card_says_how_many_calls_were_not_answered(report):
    text = " ".join(card(NANO).split())
    for section in ("suite", "stress"):
        asked = sum(each["n"] for each in report[section])
        ended_in_calls = sum(each["calls_unanswered"] for each in report[section])
        assert (f"Of these {asked:,} replies {ended_in_calls} have no answer" in text) == (
            ended_in_calls > 0
        )
    assert unanswered([{**report["suite"][0], "calls_unanswered": 0}]) == ""


def test_eval_asks_the_same_problems_with_more_room(report):
    """As the README says: those of the suite, 2,048 tokens for 400, which it seldom needs."""
    given = build_group().commands["eval"].make_context("eval", ["nano"]).params
    assert given["limit"] is None
    assert asked_questions(*(given[name] for name in ("problems", "format", "n", "seed"))) == [
        problem for name, row in SUITE.items() for problem in row.problems(name, 100, 1)
    ]
    assert (report["n"], report["seed"], MAX_TOKENS) == (1000, 1, 400)
    cut, asked = (sum(each[name] for each in report["suite"]) for name in ("cut_off", "n"))
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"2,048 tokens where it had 400 here, which cut {cut} of {asked:,}" in readme


def test_every_row_of_the_suite_was_evaluated(report):
    found = {(each["name"], each["effort"]) for each in report["suite"]}
    assert found == {(name, effort) for name, row in SUITE.items() for effort in row.efforts}


@pytest.mark.parametrize(("name", "effort"), HEADLINES)
def test_a_fresh_sample_agrees_with_the_evaluation(nano, report, name, effort):
    claimed = {(each["name"], each["effort"]): each for each in report["suite"]}[name, effort]
    (fresh,) = evaluate(nano, SUITE[name].problems(name, ITEMS, seed=2), effort)
    right = claimed["accuracy"] * claimed["n"] + fresh.accuracy * fresh.n
    pooled = right / (claimed["n"] + fresh.n)
    spread = sqrt(max(pooled * (1 - pooled), 0.01) * (1 / claimed["n"] + 1 / fresh.n))
    assert abs(claimed["accuracy"] - fresh.accuracy) < FAR * spread

"""The claims about nano in README and card match its evaluation, and a new sample agrees."""

import json
from collections.abc import Iterator
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch

from oss_lab.checkpoint.read import find_folder
from oss_lab.cli.eval import load_questions
from oss_lab.cli.main import build_group
from oss_lab.config import GPT_OSS_20B, GPT_OSS_NANO
from oss_lab.evaluation.report import evaluate
from oss_lab.nano.card.findings import describe_findings
from oss_lab.nano.card.page import (
    build_card,
    build_summary,
    describe_look_back,
    describe_sizes,
    describe_unanswered,
)
from oss_lab.nano.suite import SUITE
from oss_lab.nano.tasks.settings import DIGIT_WORDS
from oss_lab.nano.training.evaluate import MAX_TOKENS
from oss_lab.nano.training.initialize import set_look_back

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
FIXED_LENGTH = {  # lists in findings.json that always have the same number of entries
    *("interval", "commonest"),
    *("kept", "final"),  # one entry per cut
    *("load", "task", "task_given_token", "token", "field"),  # one entry per layer
}
FAR = 4.5  # standard errors; a correct claim fails by chance once in 30,000 samples


@pytest.fixture(scope="module")
def report():
    return json.loads((NANO / "evaluation.json").read_text())


def test_readme_repeats_the_evaluation(report):
    assert build_summary(report) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_card_is_generated_from_the_files_next_to_it():
    assert (NANO / "README.md").read_text(encoding="utf-8") == build_card(NANO)


def test_the_card_describes_another_recipe_correctly():
    wide = replace(GPT_OSS_NANO, intermediate_size=64)
    assert describe_sizes(wide) == "The hidden size is 96, the intermediate size 64"
    assert describe_look_back(GPT_OSS_NANO, 0) == ""
    assert "two of the first layer's heads. These initially attend one token" in describe_look_back(
        GPT_OSS_NANO, 1
    )
    assert "24 of" in describe_look_back(GPT_OSS_20B, 3)


@pytest.mark.parametrize("look_back", [1, 3, 9])
def test_the_card_counts_the_heads_that_initialize_sets(look_back):
    config = GPT_OSS_NANO
    heads = config.num_attention_heads
    bias = torch.zeros((heads + 2 * config.num_key_value_heads) * config.head_dim)
    set_look_back(bias, config, look_back)
    count = int(bias.view(-1, config.head_dim)[:heads].any(1).sum())
    assert f" {DIGIT_WORDS[count]} of the first layer's heads" in describe_look_back(
        config, look_back
    )


def test_the_card_reports_how_many_calls_were_not_answered(report):
    text = " ".join(build_card(NANO).split())
    for section in ("suite", "stress"):
        asked = sum(each["n"] for each in report[section])
        ended_in_calls = sum(each["calls_unanswered"] for each in report[section])
        assert (f"Of these {asked:,} replies {ended_in_calls} have no answer" in text) == (
            ended_in_calls > 0
        )
    assert describe_unanswered([{**report["suite"][0], "calls_unanswered": 0}]) == ""


def test_the_card_describes_findings_with_missing_parts():
    """A share or a mean without a value, as for n = 0, or a list with one entry or none."""
    text = (NANO / "findings.json").read_text(encoding="utf-8")
    complete = json.loads(text)
    shortest = {
        name: part[:1] if isinstance(part, list) else part for name, part in complete.items()
    }
    describe_findings(json.loads(text, object_hook=remove_value))
    for found in (complete, shortest):
        for name in found.keys() - {"compared"}:
            section = {name: found[name]}
            for change in remove_parts(section):
                try:
                    assert "None" not in describe_findings(section)
                except Exception as error:
                    pytest.fail(f"{change}: {error!r}")


def remove_value(found: dict[str, Any]) -> dict[str, Any]:
    return found | {"value": None, "interval": None} if "value" in found else found


def remove_parts(found: Any, path: str = "") -> Iterator[str]:
    """Remove one value or cut one list at a time. Yields the change."""
    for key, old in list(found.items() if isinstance(found, dict) else enumerate(found)):
        place = f"{path}[{key!r}]"
        if isinstance(old, dict) and "value" in old:
            found[key] = remove_value(old)
            yield f"no value in {place}"
        elif isinstance(old, list) and key not in FIXED_LENGTH:
            for length in (0, 1):
                found[key] = old[:length]
                yield f"{length} entries in {place}"
        found[key] = old
        if isinstance(old, dict | list):
            yield from remove_parts(old, place)


def test_eval_asks_the_same_problems_with_a_higher_token_limit(report):
    """As the README says: the problems of the suite, with 2,048 tokens instead of 400, which are
    rarely needed."""
    given = build_group().commands["eval"].make_context("eval", ["nano"]).params
    assert given["limit"] is None
    assert load_questions(*(given[name] for name in ("problems", "format", "n", "seed"))) == [
        problem for name, row in SUITE.items() for problem in row.draw_problems(name, 100, 1)
    ]
    assert (report["n"], report["seed"], MAX_TOKENS) == (1000, 1, 400)
    cut, asked = (sum(each[name] for each in report["suite"]) for name in ("cut_off", "n"))
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    sentence = f"(400 in this table; that limit truncated {cut} of {asked:,} replies)"
    assert f"use up to 2,048 tokens {sentence}" in readme


def test_every_row_of_the_suite_was_evaluated(report):
    found = {(each["name"], each["effort"]) for each in report["suite"]}
    assert found == {(name, effort) for name, row in SUITE.items() for effort in row.efforts}


@pytest.mark.parametrize(("name", "effort"), HEADLINES)
def test_a_fresh_sample_agrees_with_the_evaluation(nano, report, name, effort):
    claimed = {(each["name"], each["effort"]): each for each in report["suite"]}[name, effort]
    (fresh,) = evaluate(nano, SUITE[name].draw_problems(name, ITEMS, seed=2), effort)
    right = claimed["accuracy"] * claimed["n"] + fresh.accuracy * fresh.n
    pooled = right / (claimed["n"] + fresh.n)
    spread = sqrt(max(pooled * (1 - pooled), 0.01) * (1 / claimed["n"] + 1 / fresh.n))
    assert abs(claimed["accuracy"] - fresh.accuracy) < FAR * spread

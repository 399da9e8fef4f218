"""What README and card say of nano is what its evaluation found, and a fresh sample agrees."""

import json
from pathlib import Path

import pytest

import oss_lab
from oss_lab.checkpoint.read import find_folder
from oss_lab.train.card import card
from oss_lab.train.evaluate import score
from oss_lab.train.tasks import EFFORTS

NANO = find_folder("nano")
ROOT = Path(__file__).resolve().parents[2]
LONG = "product 3x2 digits"


@pytest.fixture(scope="module")
def scores():
    report = json.loads((NANO / "evaluation.json").read_text())
    return {(each["task"], each["effort"]): each for each in report["scores"]}


def test_readme_repeats_the_evaluation(scores):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for effort in EFFORTS:
        found = scores[LONG, effort]
        low, high = (f"{bound:.1%}".removesuffix("%") for bound in found["interval"])
        tokens = f"{found['mean_analysis_tokens']:.0f}"
        right = f"{found['accuracy']:.1%}".replace("%", " %")
        assert f"| {effort} | {right} | {low} – {high} % | {tokens} |" in readme


def test_card_is_generated_from_what_lies_beside_it():
    assert (NANO / "README.md").read_text(encoding="utf-8") == card(NANO)


@pytest.mark.parametrize(("effort", "n"), [("low", 128), ("high", 128)])
def test_a_fresh_sample_agrees_with_the_evaluation(scores, effort, n):
    lab = oss_lab.load("nano", verbose=False)
    fresh = score(lab, LONG, effort, n=n, seed=2)
    low, high = fresh.interval
    assert low - 0.03 <= scores[LONG, effort]["accuracy"] <= high + 0.03

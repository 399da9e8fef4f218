"""Is an expert that only one task needs found, and distinguished from the others? Here it is
planted in a substitute model. An untrained model and nano show that the full experiment runs."""

import json
from contextlib import contextmanager
from dataclasses import asdict
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from oss_lab.analysis.statistics.paired import contrast_interval, paired_interval
from oss_lab.analysis.statistics.shares import Paired, Share
from oss_lab.errors import LabError
from oss_lab.hooks.interventions import AblateExpert
from oss_lab.hooks.selection import Selection
from oss_lab.nano.studies import knock_out, nominate, problems, selective
from oss_lab.nano.studies.knock_out import (
    AblationCost,
    LostReply,
    collect_lost_replies,
    grade_tasks,
    measure_drops,
)
from oss_lab.nano.studies.problems import draw_problems
from oss_lab.nano.tasks.sums_and_products import Products, Sums
from oss_lab.record.token_labels import label_token_ids
from oss_lab.record.trace import Origin, Trace
from oss_lab.tokenizer import load_vocabulary

LAYERS, EXPERTS, SLOTS = 2, 8, 2
OF_PRODUCTS, OF_SUMS = (1, 3), (0, 2)


class PlantedLab:
    """Replaces a Lab: products use one expert and sums another.

    Attributes:
        harm: the share of products and of sums that fail when an expert is ablated.
        traced: the texts that were traced.
        asked: the questions of each round of answers.
    """

    def __init__(self, harm):
        self.tokenizer = load_vocabulary("nano")
        self.config = SimpleNamespace(num_experts=EXPERTS)
        self.harm = {AblateExpert(layer=n, expert=e): lost for (n, e), lost in harm.items()}
        self.off: Any = None
        self.traced, self.asked = list[str](), list[list[str]]()
        self.rng = np.random.default_rng(0)

    def trace(self, tokens, points, positions):
        text = self.tokenizer.decode(tokens)
        self.traced.append(text)
        order = self.rng.random((LAYERS, len(positions), EXPERTS))
        layer, expert = OF_PRODUCTS if "*" in text else OF_SUMS
        order[layer, :, expert] = -1
        ids = torch.from_numpy(np.argsort(order, -1)[..., :SLOTS].copy())
        return Trace(
            tuple(tokens),
            label_token_ids(self.tokenizer, tokens),
            Selection(tuple(points), positions=tuple(positions)),
            LAYERS,
            1,
            {f"moe.expert_ids/{n}": each for n, each in enumerate(ids)},
            Origin(None, "reference", "float32", "cpu", None, (), {}),
        )

    @contextmanager
    def intervene(self, change):
        self.off = change
        yield SimpleNamespace(each=[SimpleNamespace(size=0.25)])
        self.off = None

    def marks(self, problems):
        """Right, except for the share that the ablated expert costs. Forbidden experts are
        replaced."""
        self.asked.append([problem.question for problem in problems])
        harm = self.harm.get(self.off, (0.0, 0.0))
        rows = [problem.name.endswith("product") for problem in problems]
        counts = {True: rows.count(True), False: rows.count(False)}
        seen, right = {True: 0, False: 0}, list[bool]()
        for product in rows:
            right.append(seen[product] >= round(harm[not product] * counts[product]))
            seen[product] += 1
        return right


@pytest.fixture
def run_experiment(monkeypatch):
    """`run_experiment(harm)`: the experiment on the substitute, and the substitute."""

    def run(harm, n=100):
        lab: Any = PlantedLab(harm)
        monkeypatch.setattr(
            knock_out, "grade_problems", lambda _, problems, effort: lab.marks(problems)
        )
        said = [LostReply("2 * 3", "6", "", final) for final in ("7", "none", "none")]
        monkeypatch.setattr(selective, "collect_lost_replies", lambda *_: said)
        monkeypatch.setattr(selective, "NULL", 10)
        return selective.study_selective(lab, n, seed=0), lab

    return run


def test_a_planted_expert_is_found_and_confirmed(run_experiment):
    found, _ = run_experiment({OF_PRODUCTS: (1.0, 0.0), (1, 5): (0.6, 0.6)})
    sizes = found.chosen_on, found.screened_on, found.confirmed_on, found.null_on
    assert sizes == (50, 20, 50, 10)
    product, total = found.found
    assert (product.target, product.spared) == ("product", "sum")
    assert (product.layer, product.expert) == OF_PRODUCTS
    first = product.shortlist[0]
    assert (first.cost.layer, first.cost.expert) == OF_PRODUCTS
    assert first.lift_interval[0] > 1
    assert (product.without["product"].accuracy.second, product.contrast) == (Share(0, 50), 1)
    assert product.without["sum"].accuracy.difference == 0
    assert product.forbidden["product"].accuracy.difference == 0
    assert (product.own.contrast, product.chance) == (1, 1 / EXPERTS)
    assert [each.expert for each in product.others] == [e for e in range(EXPERTS) if e != 3]
    general = next(each for each in product.others if each.expert == 5)
    assert (general.target, general.spared) == pytest.approx((0.6, 0.6))
    assert (product.changed, len(product.loads)) == (0.25, EXPERTS)
    assert (product.commonest, len(product.examples)) == (("none", 2), 3)
    assert product.selective
    assert not total.selective  # no expert is needed by sums only
    assert total.chance > 0.5


@pytest.mark.parametrize(
    "harm",
    [{}, {OF_PRODUCTS: (1.0, 0.2)}, {OF_PRODUCTS: (0.05, 0.0)}],
    ids=["nothing needed", "the other falls too", "too little"],
)
def test_an_expert_that_is_not_selective_is_not_reported(run_experiment, harm):
    found, _ = run_experiment(harm)
    assert not any(each.selective for each in found.found)


def test_another_expert_with_as_large_a_contrast_counts_against_the_expert(run_experiment):
    harm = {OF_PRODUCTS: (1.0, 0.0), (1, 6): (1.0, 0.0)}
    product = run_experiment(harm)[0].found[0]
    assert (product.chance, product.selective) == (2 / EXPERTS, False)


def test_the_problems_that_confirm_differ_from_those_that_select(run_experiment):
    _, lab = run_experiment({OF_PRODUCTS: (1.0, 0.0)})
    fresh = set(max(lab.asked, key=len))
    assert len(fresh) == 100
    assert len(lab.traced) == 100
    chosen = "\n".join(lab.traced)
    assert not [question for question in fresh if f"{question}<|end|>" in chosen]
    screening = set(lab.asked[0])
    assert len(screening) == 40
    assert not screening & fresh
    assert all(f"{question}<|end|>" in chosen for question in screening)


def test_the_full_experiment_on_an_untrained_model(untrained, monkeypatch):
    monkeypatch.setattr(problems, "MAX_TOKENS", 3)
    monkeypatch.setattr(nominate, "SHORTLIST", 2)
    found = selective.study_selective(untrained, n=4, seed=0)
    written = json.loads(json.dumps(asdict(found), allow_nan=False))
    assert [each["target"] for each in written["found"]] == ["product", "sum"]
    for each in written["found"]:
        assert len(each["shortlist"]) == 2
        assert len(each["others"]) == untrained.config.num_experts - 1
        assert each["selective"] is False
    with pytest.raises(LabError, match="n is 3; it must be 4 or more"):
        selective.study_selective(untrained, n=3, seed=0)


def test_the_cost_of_one_of_nanos_experts_equals_plain_answers(nano):
    tasks = {"product": Products(lengths=(2, 1)), "sum": Sums(terms=2, digits=2)}
    problems = {name: draw_problems(task, 2, Random(0)) for name, task in tasks.items()}
    whole = grade_tasks(nano, problems)
    change = AblateExpert(layer=0, expert=11)
    with nano.intervene(change):
        after = {
            name: [p.is_right(nano.chat(p.prompt("high"), max_tokens=400).messages) for p in each]
            for name, each in problems.items()
        }
    found, changed = measure_drops(nano, change, problems, whole)
    assert 0 < changed < 1
    for name, right in after.items():
        assert found[name].accuracy == Paired.of(whole[name], right)
    lost = {name: sum(whole[name]) / 2 - sum(right) / 2 for name, right in after.items()}
    expected = AblationCost(0, 11, lost["product"], lost["sum"])
    assert knock_out.measure_cost(nano, 0, 11, problems, whole, "product", "sum") == expected
    assert sum(lost.values()) > 0
    for name, right in after.items():
        gone = [
            p.question for p, a, b in zip(problems[name], whole[name], right, strict=True) if a > b
        ]
        said = collect_lost_replies(nano, change, problems[name], whole[name])
        assert [each.question for each in said] == gone
        assert all(each.final.strip() != each.answer for each in said)


def test_paired_intervals_match_newcombes_table():
    for both, first, second, neither, expected in (  # Stat. Med. 17, 1998, table II, method 10
        (36, 12, 2, 0, (0.0569, 0.3404)),
        (36, 14, 0, 0, (0.1528, 0.4167)),
    ):
        n = both + first + second + neither
        pair = Paired(
            Share(both + first, n), Share(both + second, n), (first - second) / n, first, second
        )
        assert paired_interval(pair) == pytest.approx(expected, abs=1e-4)
    low, high = contrast_interval(0.5, (0.4, 0.6), 0.1, (0.1, 0.1))
    assert (low, high) == pytest.approx((0.3, 0.5))

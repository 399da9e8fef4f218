"""The findings on sinks: the changes, the reading of replies, and the intervals, each checked in
another way."""

import math
from random import Random
from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from oss_lab.analysis.statistics.bootstrap import Mean
from oss_lab.analysis.statistics.paired import paired_interval
from oss_lab.analysis.statistics.shares import Paired
from oss_lab.harmony import render
from oss_lab.hooks.interventions import RemoveSink, ScaleHead, ShiftSink
from oss_lab.nano.studies import sinks
from oss_lab.nano.studies.problems import draw_problems, grade_problems


@pytest.fixture
def short_suite(monkeypatch):
    """One task, few problems. A model that learned nothing gives replies of 400 tokens."""
    monkeypatch.setattr(sinks, "TASKS", {"out of reach": sinks.TASKS["out of reach"]})
    monkeypatch.setattr(sinks, "GAIN_PROBLEMS", 2)
    monkeypatch.setattr(sinks, "READ", 3)
    monkeypatch.setattr(sinks, "AT_ONCE", 2)
    monkeypatch.setattr("oss_lab.nano.studies.problems.MAX_TOKENS", 5)


def test_every_change_does_what_its_name_says(untrained, short_suite):
    made = sinks.build_changes(untrained, seed=3)
    layers = untrained.config.num_hidden_layers
    alone = [f"layer {layer} removed" for layer in range(layers)]
    assert list(made) == ["all removed", *alone, "shifted", "gain kept"]
    tokens = range(40)
    points = ["attn.sink", "attn.sink_mass", "attn.z"]
    plain = untrained.trace(tokens, points)
    for layer, name in enumerate(alone):
        with untrained.intervene(*made[name]):
            trace = untrained.trace(tokens, points)
        gone = [not trace.tensor("attn.sink_mass", n).any() for n in range(layers)]
        assert gone == [n == layer for n in range(layers)]
    with untrained.intervene(*made["all removed"]):
        removed = untrained.trace(tokens, points)
    assert not removed["attn.sink_mass"].values.any()
    with untrained.intervene(*made["shifted"]):
        shifted = untrained.trace(tokens, points)
    moved = shifted["attn.sink"].values - plain["attn.sink"].values
    np.testing.assert_allclose(np.abs(moved), math.log(2), rtol=1e-5)
    assert ((moved > 0).sum(1) == moved.shape[1] / 2).all()
    assert ((moved[0] > 0) != (moved[1] > 0)).any()
    again = [cast(ShiftSink, each).by for each in sinks.build_changes(untrained, seed=3)["shifted"]]
    assert again == [cast(ShiftSink, each).by for each in made["shifted"]]


def test_the_kept_gain_is_the_mean_share_of_attention_on_tokens(untrained, short_suite):
    gone, *scales = sinks.build_changes(untrained, seed=3)["gain kept"]
    assert gone == RemoveSink(layer="all", head="all")
    rng, left = Random("3/sinks/gain"), []
    for problem in draw_problems(sinks.TASKS["out of reach"], 2, rng):
        ids = render(problem.conversation("high"), untrained.tokenizer, mode="training").tokens
        pattern = untrained.trace(ids, ["attn.pattern"])[
            "attn.pattern"
        ].values  # layer seq head key
        left += list(pattern.sum(-1).transpose(1, 0, 2))
    expected = np.mean(left, axis=0)
    for each in scales:
        assert isinstance(each, ScaleHead)
        assert each.by == pytest.approx(expected[*each.layer, *each.head], abs=1e-5)
    assert len(scales) == expected.size


def test_a_reply_in_a_batch_is_read_as_if_alone(untrained, short_suite):
    """Batches are padded. Each reply must be read as without the others, with and without sinks."""
    problems = draw_problems(sinks.TASKS["out of reach"], 3, Random(5))
    for change in ([], [RemoveSink(layer="all", head="all")]):
        with untrained.intervene(*change):
            found = sinks.read_replies(untrained, problems)
            for problem, each in zip(problems, found, strict=True):
                rendered = render(
                    problem.conversation("high"), untrained.tokenizer, mode="training"
                )
                logprobs = untrained.logits(rendered.tokens).log_softmax(-1)
                own = [n for n, mine in enumerate(rendered.loss_mask) if mine]
                assert len(own) == len(each.said) > 10
                for row, n in enumerate(own):
                    torch.testing.assert_close(
                        each.logprobs[row], logprobs[n - 1], atol=2e-4, rtol=0
                    )
                    assert each.said[row] == each.logprobs[row, rendered.tokens[n]]


def test_the_rows_equal_separate_runs(untrained, short_suite):
    found = sinks.study_sinks(untrained, n=4, seed=0)
    assert len(found) == 5
    assert {each.read for each in found} == {3}
    problems = draw_problems(sinks.TASKS["out of reach"], 4, Random("0/sinks/out of reach"))
    row = found[0]
    with untrained.intervene(RemoveSink(layer="all", head="all")):
        right = grade_problems(untrained, problems, "high")
        changed = sinks.read_replies(untrained, problems[:3])
    assert row.accuracy == Paired.of(right, grade_problems(untrained, problems, "high"))
    plain = sinks.read_replies(untrained, problems[:3])
    said = [1000 * float(each.said.mean()) for each in changed]
    before = [1000 * float(each.said.mean()) for each in plain]
    assert row.logprob.value == pytest.approx(np.mean(said), abs=1e-2)
    assert row.logprob_change.value == pytest.approx(np.mean(said) - np.mean(before), abs=1e-2)
    divergence = [
        1000
        * float(F.kl_div(q.logprobs, p.logprobs, log_target=True, reduction="sum"))
        / len(p.logprobs)
        for p, q in zip(plain, changed, strict=True)
    ]
    assert row.divergence.value == pytest.approx(np.mean(divergence), abs=1e-2)
    assert row.divergence.value is not None
    assert row.divergence.interval is not None
    assert row.divergence.value > 0.1
    low, high = row.divergence.interval
    assert min(divergence) - 1e-2 <= low <= row.divergence.value <= high <= max(divergence) + 1e-2


def test_a_bootstrap_interval_has_its_nominal_coverage():
    draw = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        interval = Mean.of(draw.normal(1.0, 2.0, 60), seed).interval
        assert interval is not None
        low, high = interval
        covered += low <= 1.0 <= high
    assert 178 <= covered <= 199  # 190 expected; binomial, 4 standard deviations


def test_a_paired_interval_has_its_nominal_coverage():
    """Correlated outcomes: both models are right on easy problems."""
    draw, covered, widths = Random(0), 0, []
    for _ in range(300):
        first, second = [], []
        for _ in range(80):
            easy = draw.random() < 0.7
            first.append(easy and draw.random() < 0.9)
            second.append(easy or draw.random() < 0.2)
        low, high = paired_interval(Paired.of(first, second))
        covered += low <= 0.63 - 0.76 <= high
        widths.append(high - low)
    assert 0.93 * 300 <= covered <= 0.99 * 300
    assert max(widths) < 0.35


def test_a_paired_interval_changes_sign_when_the_models_are_swapped():
    first, second = [True] * 50 + [False] * 14, [True] * 40 + [False] * 24
    low, high = paired_interval(Paired.of(first, second))
    assert low < 10 / 64 < high
    assert paired_interval(Paired.of(second, first)) == pytest.approx((-high, -low))
    none = paired_interval(Paired.of([True] * 64, [True] * 64))
    assert none[0] == pytest.approx(-none[1])
    assert 0.05 < none[1] < 0.06

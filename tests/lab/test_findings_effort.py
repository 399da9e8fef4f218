"""What the effort changes: tokens, accuracy and experts, each against a plain count."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from math import log2

import numpy as np
import pytest

from oss_lab.engine.sampling import GREEDY
from oss_lab.harmony.messages import EFFORTS
from oss_lab.nano.studies import divergence, effort
from oss_lab.nano.studies import problems as problems_of
from oss_lab.nano.studies.divergence import (
    count_choices,
    measure_divergences,
    share_moved,
    shuffle_tokens,
)
from oss_lab.nano.studies.problems import MAX_TOKENS

EXPERTS = 8


def choices(rng, tokens, experts: Sequence[int] = range(EXPERTS), layers=2, slots=3):
    """Random distinct experts for each token: [layer token slot]."""
    return np.array(
        [[rng.permutation(experts)[:slots] for _ in range(tokens)] for _ in range(layers)]
    )


def plain_bits(first, second, layer):
    """The divergence of two pools of choices in one layer, computed with a Counter only."""
    p, q = (Counter(int(e) for x in side for e in x[layer].ravel()) for side in (first, second))
    bits = 0.0
    for mine, other in ((p, q), (q, p)):
        for expert, count in mine.items():
            share, theirs = count / mine.total(), other[expert] / other.total()
            bits += share * log2(share / ((share + theirs) / 2)) / 2
    return bits


def test_divergence_against_a_plain_count():
    rng = np.random.default_rng(0)
    first, second = ([choices(rng, n) for n in sizes] for sizes in ((5, 3, 9), (4, 8, 2)))
    for layer, found in enumerate(measure_divergences(first, second, EXPERTS, seed=1)):
        assert found.bits == pytest.approx(plain_bits(first, second, layer))
        assert found.interval[0] < found.interval[1]


def test_a_different_use_exceeds_both_nulls_and_the_same_use_does_not():
    rng = np.random.default_rng(0)
    first, same = ([choices(rng, 20) for _ in range(12)] for _ in range(2))
    other = [choices(rng, 20, experts=range(4, EXPERTS)) for _ in range(12)]
    for found in measure_divergences(first, other, EXPERTS, seed=1):
        assert found.bits > 2 * max(found.tokens_dealt, found.problems_swapped)
        assert found.interval[0] > found.tokens_dealt
    for found in measure_divergences(first, same, EXPERTS, seed=1):
        assert found.bits < 2 * min(found.tokens_dealt, found.problems_swapped)


def test_problems_with_their_own_experts_are_not_an_effect_of_effort():
    """If a few long problems use their own experts, shuffled tokens show an effect; swaps do
    not.
    """
    rng = np.random.default_rng(0)
    first, second = (
        [choices(rng, 60, experts=rng.permutation(EXPERTS)[:4].tolist()) for _ in range(6)]
        for _ in range(2)
    )
    for found in measure_divergences(first, second, EXPERTS, seed=1):
        assert found.tokens_dealt < found.bits < found.problems_swapped


def test_shuffling_keeps_every_token_and_the_size_of_each_side(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = count_choices(choices(rng, 5), EXPERTS), count_choices(choices(rng, 9), EXPERTS)
    seen = []
    monkeypatch.setattr(
        divergence, "divergence_in_bits", lambda one, other: seen.append((one, other))
    )
    shuffle_tokens(a, b, rng)
    ((one, other),) = seen
    np.testing.assert_allclose(one + other, np.tile((a.sum(0) + b.sum(0)), (len(one), 1, 1)))
    assert (one.sum(2) == 5 * 3).all()
    assert (other.sum(2) == 9 * 3).all()
    assert len({row.tobytes() for row in one}) > len(one) / 2


def test_moved_experts_match_values_worked_out_by_hand():
    first = np.array([[[0, 1, 2, 3], [0, 1, 2, 3]]])
    second = np.array([[[3, 2, 1, 0], [0, 5, 6, 7]]])
    assert share_moved(first, second, EXPERTS).tolist() == [[0], [0.75]]


def test_nano_at_each_effort(nano, monkeypatch):
    monkeypatch.setattr(effort, "TASKS", {"list": effort.TASKS["list"]})
    (found,) = effort.study_effort(nano, n=3, seed=2)
    problems = effort.draw_problems(effort.TASKS["list"], 3, effort.Random("2/effort/list"))
    assert found.routed == 1
    for at, name in zip(found.by_effort, EFFORTS, strict=True):
        replies = [
            nano.chat(problem.prompt(name), sampling=GREEDY, max_tokens=MAX_TOKENS)
            for problem in problems
        ]
        total = sum(mean.value or 0 for mean in at.tokens.values())
        assert total == pytest.approx(sum(len(reply.ids) for reply in replies) / 3)
        assert at.accuracy.count == sum(
            reply.final.strip() == problem.answer
            for reply, problem in zip(replies, problems, strict=True)
        )
    low, _, high = found.by_effort
    assert low.tokens["analysis"].value == 0 < (high.tokens["analysis"].value or 0)
    assert low.tokens["analysis"].interval == (0, 0)
    assert {each.efforts for each in found.compared} == set(combinations(EFFORTS, 2))
    for each in found.compared:
        assert len(each.divergence) == nano.config.num_hidden_layers
        matched = each.part != "reply"
        assert (each.moved is not None) == matched
        assert (each.tokens[0] == each.tokens[1]) == matched
        if each.moved is not None:
            assert each.moved[0].n == each.problems


def test_the_parts_of_a_reply_have_the_experts_of_its_tokens(nano):
    reply = nano.chat("What is 3 * 4?", effort="medium")
    found = effort.trace_parts(nano, reply)
    assert nano.tokenizer.decode(found["question"].tokens) == "What is 3 * 4?"
    assert nano.tokenizer.decode(found["final"].tokens) == reply.final
    assert found["reply"].tokens == list(reply.ids)
    begin = len(reply.prompt_tokens)
    places = [begin + n for n in range(len(reply.ids))]
    trace = nano.trace(reply, ["moe.expert_ids"], positions=places)
    for layer, chosen in enumerate(found["reply"].chosen):
        assert chosen.tolist() == trace.tensor("moe.expert_ids", layer).tolist()


def test_an_untrained_model_has_no_answers_to_compare(untrained, monkeypatch):
    monkeypatch.setattr(effort, "TASKS", {"list": effort.TASKS["list"]})
    monkeypatch.setattr(problems_of, "MAX_TOKENS", 8)
    (found,) = effort.study_effort(untrained, n=3, seed=0)
    assert {each.part for each in found.compared} == {"reply", "question"}
    assert all(each.cut_off == 3 and each.accuracy.count == 0 for each in found.by_effort)

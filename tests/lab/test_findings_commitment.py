"""When is the answer decided? Curves worked out by hand, and nano's forced answers against new
runs."""

import pytest

from oss_lab.analysis.statistics.bootstrap import Mean
from oss_lab.engine.batch import Batch
from oss_lab.engine.reference import ReferenceEngine
from oss_lab.engine.request import Request
from oss_lab.engine.sampling import GREEDY
from oss_lab.nano.studies import commitment
from oss_lab.nano.studies import problems as problems_of
from oss_lab.nano.studies.commitment import (
    GRID,
    CutAnswers,
    answer_after_chains,
    average_at_shares,
    run_control,
)
from oss_lab.nano.studies.problems import MAX_TOKENS


def make_answers(kept, answers, final="9", **changes):
    """Answers at these cuts; the true answer is 9."""
    values = {"question": "?", "true": "9", "reached": [""] * len(kept)}
    return CutAnswers(
        final=final, kept=kept, answers=answers, logprobs=[-1.0] * len(kept), **values | changes
    )


def test_between_two_cuts_the_earlier_answer_counts():
    each = make_answers([0, 0.25, 0.5, 1], ["1", "2", "3", "9"])
    assert [each.at(share) for share in (0, 0.2, 0.25, 0.49, 0.5, 0.99, 1)] == [
        0, 0, 1, 1, 2, 2, 3
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "fixed"),
    [
        (["9", "9", "9"], 0),
        (["9", "2", "9"], 1),
        (["1", "9", "9"], 0.4),
        (["9", "9", "2"], 1),
    ],
)
def test_an_answer_is_decided_once_it_no_longer_changes(answers, fixed):
    assert make_answers([0, 0.4, 1], answers).fixed == fixed


def test_a_curve_is_the_share_of_problems_at_each_share_of_the_chain():
    found = [make_answers([0, 1], ["1", "9"]), make_answers([0, 0.45, 1], ["1", "9", "9"])]
    hits = [[answer == each.final for answer in each.answers] for each in found]
    means = average_at_shares(found, hits, seed=0)
    assert [mean.value for mean in means] == [0.0] * 5 + [0.5] * 5 + [1.0]
    assert [mean.interval for mean in means][-1] == (1, 1)
    assert [mean.interval for mean in means][5] == (0, 1)


def test_the_interval_of_a_mean_covers_it_and_narrows():
    few, many = Mean.of([0, 1] * 10, seed=1), Mean.of([0, 1] * 1000, seed=1)
    assert few.value == many.value == 0.5
    low, high = many.interval or (0, 0)
    assert high - low == pytest.approx(4 * 0.5 / 2000**0.5, rel=0.1)
    assert (few.interval or (1, 1))[0] < low < 0.5 < high
    assert Mean.of([], seed=1) == Mean(None, None, 0)


def test_nano_answers_with_the_result_of_the_chain(nano, monkeypatch):
    monkeypatch.setattr(commitment, "ROWS", commitment.ROWS[1:3])
    found = commitment.study_commitment(nano, n=10, seed=3)
    assert [(each.task, each.effort) for each in found] == [
        (name, effort) for name, _, effort in commitment.ROWS
    ]
    for each in found:
        assert each.used.n == 2
        assert each.kept == GRID
        assert len(each.final) == len(each.true) == len(each.reached) == len(GRID)
        assert each.final[-1].value == 1
        assert (each.logprob[-1].value or 0) > (each.logprob[0].value or 0)
        assert each.control.true.value == 0
        for example in each.examples:
            assert example.kept[0] == 0
            assert example.kept[-1] == 1
            assert example.answers[-1] == example.final


def test_the_control_puts_another_chain_after_the_same_question(nano):
    problems = commitment.draw_problems(commitment.ROWS[3][1], 3, commitment.Random(5))
    prompts = [problem.prompt("high") for problem in problems]
    replies = nano.chat_batch(prompts, sampling=GREEDY, max_tokens=MAX_TOKENS)
    pairs = [(replies[n], replies[n - 1]) for n in range(3)]
    for (reply, other), said in zip(pairs, answer_after_chains(nano, pairs), strict=True):
        text = (
            f"<|channel|>analysis<|message|>{other.analysis}<|end|>"
            "<|start|>assistant<|channel|>final<|message|>"
        )
        begun = [*reply.prompt_tokens, *nano.tokenizer.encode(text, allowed_special="all")]
        afresh = Batch(ReferenceEngine(nano.model))
        afresh.add([Request(tuple(begun), stop=frozenset(nano.stops), max_tokens=64)])
        ids = [token.id for _, token in afresh if token.id not in nano.stops]
        assert nano.tokenizer.decode(ids).strip() == said
    found = run_control(nano, list(zip(problems, replies, strict=True)))
    assert found.true.n == found.true.count + found.other.count + found.neither.count == 3


def test_a_chain_with_the_same_answer_is_not_a_control(nano):
    problems = commitment.draw_problems(commitment.ROWS[3][1], 1, commitment.Random(5))
    replies = nano.chat_batch([problems[0].prompt("high")], sampling=GREEDY, max_tokens=MAX_TOKENS)
    assert run_control(nano, [(problems[0], replies[0])] * 2).true.n == 0


def test_without_answers_there_is_nothing_to_measure(untrained, monkeypatch):
    monkeypatch.setattr(problems_of, "MAX_TOKENS", 8)
    for each in commitment.study_commitment(untrained, n=5, seed=0):
        assert each.used.count == each.control.true.n == 0
        assert each.fixed == Mean(None, None, 0)

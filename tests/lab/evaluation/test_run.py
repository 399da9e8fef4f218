"""From questions to outcomes: one reply per question, in batches, truncated or not, sampled or
greedy."""

from dataclasses import replace
from random import Random

import pytest

from oss_lab.config import GPT_OSS_NANO
from oss_lab.engine.sampling import GREEDY, Sampling
from oss_lab.errors import LabError
from oss_lab.evaluation.grade import WrittenAnswer
from oss_lab.evaluation.question import FileQuestion
from oss_lab.evaluation.run import BUCKET, sort_by_length
from oss_lab.lab import Lab
from oss_lab.tokenizer import load_vocabulary

ANSWER = "<|channel|>final<|message|>{}<|return|>"


def test_each_question_gets_an_outcome(answering_lab, make_questions, run_evaluation, successor):
    lab = answering_lab(successor)
    found = run_evaluation(lab, make_questions(7), "medium", batch=3)
    assert [each.index for each in found] == list(range(7))
    assert [each.right for each in found] == [k % 3 != 0 for k in range(7)]
    assert {(each.name, each.effort, each.stop, each.calls) for each in found} == {
        ("sums", "medium", "return", 0)
    }
    assert [each.final for each in found[:3]] == ["no idea", "2", "3"]
    assert lab.batches == [3, 3, 1]


def test_only_analysis_tokens_are_counted(answering_lab, tiny, make_questions, run_evaluation):
    thought = "thinking in bytes"
    script = f"<|channel|>analysis<|message|>{thought}<|end|><|start|>assistant" + ANSWER.format(1)
    (found,) = run_evaluation(answering_lab(lambda *_: script), make_questions(1))
    assert found.analysis_tokens == len(tiny.encode(thought))
    assert found.tokens == len(tiny.encode(script, allowed_special="all"))
    assert found.right


def test_a_truncated_reply_is_wrong_even_if_it_begins_with_the_answer(
    answering_lab, tiny, make_questions, run_evaluation
):
    script = ANSWER.format("123")
    n = len(tiny.encode(script, allowed_special="all")) - 3  # up to and including the 1
    (found,) = run_evaluation(answering_lab(lambda *_: script), make_questions(1), max_tokens=n)
    assert (found.final, found.stop, found.right) == ("1", "length", False)


def test_a_missing_answer_is_wrong(answering_lab, make_questions, run_evaluation):
    script = "<|channel|>analysis<|message|>1<|return|>"
    (found,) = run_evaluation(answering_lab(lambda *_: script), make_questions(1))
    assert (found.final, found.right) == (None, False)


def test_a_prompt_that_fills_the_context_is_refused_before_any_is_answered(
    answering_lab, make_questions, run_evaluation, successor
):
    lab = answering_lab(successor)
    questions = [*make_questions(2), FileQuestion("long\n", "7" * 9000, WrittenAnswer("1"))]
    with pytest.raises(LabError, match=r"^question 3 \('long\\n'\) takes 9,\d+ tokens") as raised:
        run_evaluation(lab, questions)
    assert "\n" not in str(raised.value)
    assert lab.batches == []


def test_finished_questions_are_skipped(answering_lab, make_questions, run_evaluation, successor):
    lab = answering_lab(successor)
    assert [each.index for each in run_evaluation(lab, make_questions(6), done={0, 2, 5})] == [
        1,
        3,
        4,
    ]
    assert sum(lab.batches) == 3


def test_prompts_of_similar_length_are_neighbors():
    rng = Random(0)
    lengths = [rng.randrange(5, 90) for _ in range(2 * BUCKET + 9)]
    order = sort_by_length(lengths)
    assert sorted(order) == list(range(len(lengths)))
    for start in range(0, len(order), BUCKET):
        window = order[start : start + BUCKET]
        assert max(window) - min(window) < BUCKET
        assert [lengths[n] for n in window] == sorted((lengths[n] for n in window), reverse=True)


# Sampling


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_a_draw_depends_on_the_question_and_not_on_its_batch(
    answering_lab, batch, make_questions, run_evaluation
):
    def finals(**options):
        lab = answering_lab(lambda _, draw: ANSWER.format(draw), sampling=Sampling())
        return [each.final for each in run_evaluation(lab, make_questions(9), **options)]

    one_by_one = finals(batch=1)
    assert len(set(one_by_one)) == 9
    assert finals(batch=batch) == one_by_one
    assert finals(batch=batch, done={1, 4, 5}) == [one_by_one[n] for n in (0, 2, 3, 6, 7, 8)]
    assert not set(finals(batch=batch, seed=2)) & set(one_by_one)
    assert not set(finals(batch=batch, effort="high")) & set(one_by_one)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling()])
def test_the_batches_of_a_resumed_run_are_full(
    answering_lab, make_questions, run_evaluation, successor, sampling
):
    lab = answering_lab(successor, sampling=sampling)
    run_evaluation(lab, make_questions(9), batch=4, done={1, 4})
    assert lab.batches == [4, 3]


# A model


@pytest.fixture
def random_lab(random_model, tiny_config):
    """A Lab with random weights and nano's vocabulary."""
    model = random_model(replace(tiny_config, vocab_size=GPT_OSS_NANO.vocab_size))
    return Lab(model, load_vocabulary("nano"), GREEDY)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling()])
def test_a_model_gives_the_same_replies_in_any_batch(
    random_lab, sampling, make_questions, run_evaluation
):
    random_lab.sampling = sampling
    questions = make_questions(7)
    each = [run_evaluation(random_lab, questions, batch=n, max_tokens=8) for n in (1, 3, 64)]
    assert each[0] == each[1] == each[2]
    assert {o.tokens for o in each[0]} <= set(range(1, 9))

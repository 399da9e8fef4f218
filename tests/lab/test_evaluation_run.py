"""Questions to outcomes: one reply a question, in batches, cut or not, drawn or not."""

from dataclasses import replace
from random import Random

import pytest

from oss_lab.config import GPT_OSS_NANO
from oss_lab.engine.sampling import GREEDY, Sampling
from oss_lab.errors import LabError
from oss_lab.evaluation.grade import Written
from oss_lab.evaluation.question import FileQuestion
from oss_lab.evaluation.run import BUCKET, by_length
from oss_lab.lab import Lab
from oss_lab.tokenizer import load_vocabulary

ANSWER = "<|channel|>final<|message|>{}<|return|>"


def test_each_question_gets_an_outcome(answering_lab, asked, outcomes, successor):
    lab = answering_lab(successor)
    found = outcomes(lab, asked(7), "medium", batch=3)
    assert [each.index for each in found] == list(range(7))
    assert [each.right for each in found] == [k % 3 != 0 for k in range(7)]
    assert {(each.name, each.effort, each.stop, each.calls) for each in found} == {
        ("sums", "medium", "return", 0)
    }
    assert [each.final for each in found[:3]] == ["no idea", "2", "3"]
    assert lab.batches == [3, 3, 1]


def test_analysis_is_counted_and_nothing_else_is(answering_lab, tiny, asked, outcomes):
    thought = "thinking in bytes"
    script = f"<|channel|>analysis<|message|>{thought}<|end|><|start|>assistant" + ANSWER.format(1)
    (found,) = outcomes(answering_lab(lambda *_: script), asked(1))
    assert found.analysis_tokens == len(tiny.encode(thought))
    assert found.tokens == len(tiny.encode(script, allowed_special="all"))
    assert found.right


def test_a_cut_reply_is_wrong_even_where_its_beginning_is_the_answer(
    answering_lab, tiny, asked, outcomes
):
    script = ANSWER.format("123")
    n = len(tiny.encode(script, allowed_special="all")) - 3  # up to the 1
    (found,) = outcomes(answering_lab(lambda *_: script), asked(1), max_tokens=n)
    assert (found.final, found.stop, found.right) == ("1", "length", False)


def test_no_answer_is_wrong(answering_lab, asked, outcomes):
    script = "<|channel|>analysis<|message|>1<|return|>"
    (found,) = outcomes(answering_lab(lambda *_: script), asked(1))
    assert (found.final, found.right) == (None, False)


def test_a_prompt_without_room_is_refused_before_any_is_answered(
    answering_lab, asked, outcomes, successor
):
    lab = answering_lab(successor)
    questions = [*asked(2), FileQuestion("long\n", "7" * 9000, Written("1"))]
    with pytest.raises(LabError, match=r"^question 3 \('long\\n'\) takes 9,\d+ tokens") as raised:
        outcomes(lab, questions)
    assert "\n" not in str(raised.value)
    assert lab.batches == []


def test_what_is_done_is_left_out(answering_lab, asked, outcomes, successor):
    lab = answering_lab(successor)
    assert [each.index for each in outcomes(lab, asked(6), done={0, 2, 5})] == [1, 3, 4]
    assert sum(lab.batches) == 3


def test_prompts_of_similar_length_are_neighbors():
    rng = Random(0)
    lengths = [rng.randrange(5, 90) for _ in range(2 * BUCKET + 9)]
    order = by_length(lengths)
    assert sorted(order) == list(range(len(lengths)))
    for start in range(0, len(order), BUCKET):
        window = order[start : start + BUCKET]
        assert max(window) - min(window) < BUCKET
        assert [lengths[n] for n in window] == sorted((lengths[n] for n in window), reverse=True)


# Draws


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_a_draw_depends_on_the_question_and_not_on_its_batch(answering_lab, batch, asked, outcomes):
    def finals(**options):
        lab = answering_lab(lambda _, draw: ANSWER.format(draw), sampling=Sampling())
        return [each.final for each in outcomes(lab, asked(9), **options)]

    one_by_one = finals(batch=1)
    assert len(set(one_by_one)) == 9
    assert finals(batch=batch) == one_by_one
    assert finals(batch=batch, done={1, 4, 5}) == [one_by_one[n] for n in (0, 2, 3, 6, 7, 8)]
    assert not set(finals(batch=batch, seed=2)) & set(one_by_one)
    assert not set(finals(batch=batch, effort="high")) & set(one_by_one)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling()])
def test_the_batches_of_a_resumed_run_are_full(answering_lab, asked, outcomes, successor, sampling):
    lab = answering_lab(successor, sampling=sampling)
    outcomes(lab, asked(9), batch=4, done={1, 4})
    assert lab.batches == [4, 3]


# A model


@pytest.fixture
def random_lab(random_model, tiny_config):
    """A Lab with random weights and nano's vocabulary."""
    model = random_model(replace(tiny_config, vocab_size=GPT_OSS_NANO.vocab_size))
    return Lab(model, load_vocabulary("nano"), GREEDY)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling()])
def test_a_model_says_the_same_in_any_batch(random_lab, sampling, asked, outcomes):
    random_lab.sampling = sampling
    questions = asked(7)
    each = [outcomes(random_lab, questions, batch=n, max_tokens=8) for n in (1, 3, 64)]
    assert each[0] == each[1] == each[2]
    assert {o.tokens for o in each[0]} <= set(range(1, 9))

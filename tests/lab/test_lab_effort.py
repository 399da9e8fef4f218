"""Lesson 18: its data, prices and measure, one small step, and what its stored result must have."""

from collections import Counter
from random import Random

import pytest

from oss_lab.analysis.statistics.bootstrap import Mean
from oss_lab.course.labs.effort import measure as effort
from oss_lab.course.labs.effort import phases
from oss_lab.course.labs.effort.dial import (
    LEAST,
    Answers,
    is_effect,
    measure_dial,
    summarize,
    swap_words,
)
from oss_lab.course.labs.results import load_result
from oss_lab.harmony.messages import EFFORTS, Effort
from oss_lab.nano.tasks import Problem
from oss_lab.nano.tasks.problem import is_held_out
from oss_lab.nano.tasks.sums_and_products import expression_key

LONG: dict[Effort, Answers] = {
    "low": Answers([0, 0, 18], [False, True, True]),
    "medium": Answers([0, 19, 18], [False, True, True]),
    "high": Answers([18, 19, 18], [True, True, True]),
}


@pytest.fixture(scope="module")
def result():
    return load_result("18_effort")


def is_unseen(problem: Problem) -> bool:
    assert problem.expression
    return is_held_out(*expression_key(problem.expression))


def parts(result):
    """(seed, name, part) of all that was tested."""
    for seed, found in result["seeds"].items():
        yield from ((seed, name, part) for name, part in found.items() if "words" in part)


def test_a_reward_is_one_for_a_right_answer_minus_the_price_of_its_thoughts():
    assert phases.compute_reward(True, 0, 0.06) == 1
    assert phases.compute_reward(True, 20, 0.06) == pytest.approx(-0.2)
    assert phases.compute_reward(False, 20, 0.06) == pytest.approx(-1.2)


def test_each_word_comes_with_each_style_equally_often_and_no_problem_is_held_out():
    found = Counter[tuple[str, bool]]()
    for example in phases.draw_examples(phases.EXAMPLES, seed=3):
        _, reply = example["messages"]
        found[example["effort"], "reasoning_content" in reply] += 1
    assert len(found) == 2 * len(EFFORTS)
    assert set(found.values()) == {phases.EXAMPLES // len(found)}
    for name in effort.CONDITIONS:
        for asked in phases.draw_asked(effort.CONDITIONS[name], 50, Random(0)):
            assert not is_unseen(asked.problem)


def test_the_test_asks_held_out_problems_only():
    problems = effort.draw_tested()
    assert len({each.expression for each in problems}) == effort.TESTED
    assert all(map(is_unseen, problems))


@pytest.mark.parametrize("name", effort.CONDITIONS)
def test_a_prompt_has_the_price_of_its_word_or_of_a_random_one(name):
    condition = effort.CONDITIONS[name]
    asked = phases.draw_asked(condition, 900, Random(0))
    assert Counter(each.word for each in asked) == dict.fromkeys(EFFORTS, 300)
    own = sum(each.price == condition.price(each.word) for each in asked)
    assert (own == 900) != condition.is_shuffled
    if condition.is_shuffled:
        pairs = Counter((each.word, each.price) for each in asked)
        assert len(pairs) == 9
        assert min(pairs.values()) > 70


def test_an_effect_needs_an_interval_without_0_and_enough_tokens():
    assert is_effect(Mean(LEAST, (1.0, 18.0), 300))
    assert is_effect(Mean(-LEAST, (-18.0, -1.0), 300))
    assert not is_effect(Mean(LEAST - 0.1, (8.0, 9.0), 300))
    assert not is_effect(Mean(12.0, (-0.1, 25.0), 300))


def test_the_dial_is_a_mean_over_problems():
    assert measure_dial(LONG).value == pytest.approx((18 + 19 + 0) / 3)
    found = summarize(LONG)
    medium = {"n": 3, "right": 2, "thinking": 2, "right_thinking": 2}
    assert found["words"]["medium"].items() >= medium.items()
    assert found["accuracy"]["only_high"] == 1
    assert found["accuracy"]["only_low"] == 0


def test_swapped_words_keep_the_replies_of_each_problem_and_lose_the_dial():
    n = 300
    answers: dict[Effort, Answers] = {
        "low": Answers([0] * n, [False] * n),
        "medium": Answers([9] * n, [True] * n),
        "high": Answers([18] * n, [True] * n),
    }
    swapped = swap_words(answers)
    for number in range(n):
        assert sorted(each.tokens[number] for each in swapped.values()) == [0, 9, 18]
        assert all(each.right[number] == (each.tokens[number] > 0) for each in swapped.values())
    assert abs(measure_dial(swapped).value or 0) < 3


def test_a_step_rewards_and_counts_its_replies():
    policy = phases.make_policy(phases.START, seed=0)
    asked = phases.draw_asked(effort.CONDITIONS["graded"], 3, Random(1))
    step = phases.take_step(policy, asked)
    counts = phases.count_by_word(policy.lab, asked, step)
    assert [counts[word][0] for word in EFFORTS] == [phases.SAMPLES] * 3
    graded = effort.CONDITIONS["graded"]
    total = sum(counts[word][2] - graded.price(word) * counts[word][1] for word in EFFORTS)
    assert step.reward * 3 * phases.SAMPLES == pytest.approx(total)


def test_every_cell_of_the_result_has_its_n(result):
    found = list(parts(result))
    assert {(seed, name) for seed, name, _ in found} == {
        *(("0", name) for name in ("before", *effort.CONDITIONS)),
        *((seed, name) for seed in "12" for name in ("before", *effort.REPEATED)),
    }
    for _, _, part in found:
        assert [part["words"][word]["n"] for word in EFFORTS] == [effort.TESTED] * 3
        assert part["words_swapped"]["is_effect"] is False
    assert result["cpu_minutes"] <= 35
    assert result["tried"] == list(effort.TRIED)


def test_the_summary_of_the_result_follows_from_its_counts(result):
    for _, _, part in parts(result):
        words, dial, gain = part["words"], part["dial"], part["accuracy"]
        difference = words["high"]["tokens"]["value"] - words["low"]["tokens"]["value"]
        assert dial["value"] == pytest.approx(difference, abs=0.02)
        mean = Mean(dial["value"], tuple(dial["interval"]), effort.TESTED)
        assert dial["is_effect"] == is_effect(mean)
        right = words["high"]["right"] - words["low"]["right"]
        assert gain["only_high"] - gain["only_low"] == right
        assert gain["value"] == pytest.approx(right / effort.TESTED, abs=0.001)


def test_the_curves_have_every_step(result):
    replies = effort.PROMPTS * phases.SAMPLES // 3
    for _, name, part in parts(result):
        if name == "before":
            continue
        assert len(part["curve"]) == effort.STEPS
        assert all(step[word][0] == replies for step in part["curve"] for word in EFFORTS)
    assert len(result["seeds"]["0"]["too high"]["then_free"]) == effort.STEPS // 2

"""nano's problems are right: answers by independent arithmetic, every line of a trace true, nothing
held out is trained, and what a setting changes is what it says."""

import json
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest

from oss_lab.evaluation.builtin import STRESS, SUITE, sameness
from oss_lab.harmony.messages import EFFORTS, Conversation
from oss_lab.harmony.render import render
from oss_lab.tasks import Problem, questions
from oss_lab.tasks.dialogue import FollowUp
from oss_lab.tasks.free_text import FORBIDDEN, REFUSAL, Forbidden, OutOfReach
from oss_lab.tasks.lists import KINDS, Lists
from oss_lab.tasks.lookup import Lookup
from oss_lab.tasks.mix import MIXES, is_unseen_rule
from oss_lab.tasks.problem import is_held_out
from oss_lab.tasks.settings import (
    CALCULATOR,
    DIGIT_WORDS,
    calculator,
    digit_rule,
    look_up_tool,
    other_tool,
)
from oss_lab.tasks.sums_and_products import (
    TOO_HARD,
    Products,
    Sums,
    TooLong,
    product_key,
    sum_key,
)
from oss_lab.tasks.tool_sum import ToolSum
from oss_lab.tokenizer import load_vocabulary
from oss_lab.train.data import opening_of, row_of

ARITHMETIC = [Products(), Sums(), FollowUp(), *(Sums(terms=n) for n in range(2, 7))]


def drawn(task, n=300, split="train", seed=0):
    rng = Random(seed)
    return [task.draw(rng, split) for _ in range(n)]


def value(expression: str) -> int:
    """+, - and * of whole numbers, without eval."""
    total = 0
    for sign, product in re.findall(r"([+-]?)([\d*]+)", expression):
        factor = 1
        for number in product.split("*"):
            factor *= int(number)
        total += -factor if sign == "-" else factor
    return total


@pytest.mark.parametrize("task", ARITHMETIC, ids=repr)
def test_an_answer_is_the_value_of_what_a_calculator_would_be_asked(task):
    for problem in drawn(task):
        assert problem.expression is not None
        assert int(problem.answer) == int(problem.value or "") == value(problem.expression)


@pytest.mark.parametrize("task", [Products(), Sums()], ids=repr)
def test_the_expression_has_the_numbers_of_the_question(task):
    for problem in drawn(task):
        numbers = re.findall(r"\d+", problem.expression or "")
        assert re.findall(r"\d+", problem.question) == numbers


@pytest.mark.parametrize("task", ARITHMETIC, ids=repr)
def test_every_line_at_high_effort_is_true_and_the_last_result_is_the_answer(task):
    for problem in drawn(task):
        result, heading = None, ""
        for line in problem.thoughts["high"].splitlines():
            left, equals, right = line.partition("=")
            if "<" in line:
                a, b = line.split("<")
                assert int(a) < int(b)
            elif not equals:
                heading = line
            elif not left:
                result = int(right)
                assert result == value(heading)
            else:
                assert value(left) == int(right)
        answer = int(problem.answer)
        assert result == (-answer if "<" in problem.thoughts["high"] else answer)


def test_digits_and_carries_of_a_trace_chain():
    """Each carry that is added is the tens digit of the line before, each borrow its 1."""
    for problem in drawn(Products(lengths=(3, 2)), 100) + drawn(Sums(terms=2), 100):
        lines = problem.thoughts["high"].splitlines()
        for before, after in pairwise(lines):
            if plus := re.fullmatch(r"\d[*+]\d\+(\d)=\d\d", after):
                previous = re.fullmatch(r"\d[*+]\d\+\d=(\d)\d", before)
                assert plus[1] == (previous[1] if previous else "0")
            if minus := re.fullmatch(r"1?\d-\d-(\d)=\d", after):
                previous = re.fullmatch(r"(1?)\d-\d-\d=\d", before)
                assert minus[1] == ("1" if previous and previous[1] else "0")


def test_medium_effort_writes_results_only():
    for problem in drawn(Products(lengths=(3, 2)), 100):
        lines = problem.thoughts["medium"].splitlines()
        for line in lines:
            match = re.fullmatch(r"(\S+):(.+)=(\d+)", line)
            assert match
            heading, steps, result = match.groups()
            assert value(heading) == int(result)
            digits = [step[1] for step in steps.split(",")]
            carry = steps.split(",")[-1][0].strip("0")
            written = (carry + "".join(reversed(digits))).lstrip("0") or "0"
            factor = heading.split("*")[1]
            assert written + "0" * (len(factor) - 1) == result
    for problem in drawn(Sums(terms=4), 100):
        for line in problem.thoughts["medium"].splitlines():
            left, right = line.split("=")
            assert value(left) == int(right)


def test_low_effort_never_thinks():
    rng = Random(0)
    for _ in range(300):
        setting, task = MIXES["broad"](rng)
        assert setting.applied(rng, task.draw(rng, "train")).thoughts["low"] == ""


def test_no_running_total_is_negative_but_for_two_terms():
    for problem in drawn(Sums(), 1000):
        terms = [int(t) for t in re.findall(r"[+-]?\d+", problem.expression or "")]
        totals = [sum(terms[: n + 1]) for n in range(len(terms))]
        assert len(terms) == 2 or min(totals) >= 0


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_a_look_up_is_what_following_the_list_gives(hops):
    for problem in drawn(Lookup(hops=hops)):
        stands_for = dict(re.findall(r"(\w+) is (\w+)", problem.question.split(".")[0]))
        assert dict(re.findall(r"(\w+) is (\w+)", problem.thoughts["high"])).items() <= (
            stands_for.items()
        )
        asked = problem.question.split("What is ")[1].rstrip("?")
        answers = []
        for word in re.split(r", | and ", asked):
            steps = 0
            while word in stands_for:
                word, steps = stands_for[word], steps + 1
            answers.append(word)
            assert steps == hops
        assert problem.answer == ", ".join(answers)


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_is_treated_as_asked(kind):
    expected = {
        "repeat": lambda items: items,
        "reverse": lambda items: items[::-1],
        "sort": sorted,
        "count": lambda items: [len(items)],
        "largest": lambda items: [max(items)],
    }[kind]
    for problem in drawn(Lists(kind)):
        items = [int(d) for d in re.findall(r"\d", problem.question)]
        assert [int(d) for d in problem.answer.split()] == expected(items)


def keys_of(problem):
    """What makes this problem and those before it new."""
    for earlier in problem.history:
        yield from keys_of(earlier)
    if problem.expression is not None:
        numbers = [int(term) for term in re.findall(r"[+-]?\d+", problem.expression)]
        yield product_key(*numbers) if "*" in problem.expression else sum_key(numbers)
    if problem.calls:
        yield sum_key([int(call.output) for call in problem.calls])
    if problem.name.startswith("look-up"):
        for step in re.findall(r"(\w+) is (\w+)", problem.thoughts["high"]):
            yield "=", *step


def test_nothing_held_out_is_trained():
    rng, seen = Random(0), Counter()
    for _ in range(5000):
        _, task = MIXES["broad"](rng)
        problem = task.draw(rng, "train")
        for key in keys_of(problem):
            seen[key[0]] += 1
            assert not is_held_out(*key)
    assert min(seen[sign] for sign in "*+=") > 500
    for name in ("TEMPLATES", "WORDS", "GREETINGS", "WHO", "OTHER_OPERATIONS"):
        words = getattr(questions, name)
        assert not set(words["train"]) & set(words["held_out"])


def test_everything_evaluated_is_held_out():
    for name, row in (SUITE | STRESS).items():
        for problem in row.problems(name, 20, seed=0):
            keys = list(keys_of(replace(problem, calls=()) if problem.expression else problem))
            assert all(is_held_out(*key) for key in keys)
            assert keys or not problem.name.startswith(("product", "sum", "look-up", "tool sum"))


@pytest.mark.parametrize("task", [Sums(), Products()], ids=repr)
def test_the_order_of_terms_does_not_make_a_problem_new(task):
    for problem in drawn(task):
        numbers = [int(term) for term in re.findall(r"[+-]?\d+", problem.expression)]
        key = product_key if "*" in problem.expression else lambda *terms: sum_key(terms)
        assert key(*numbers) == key(*reversed(numbers))


def test_a_pair_of_rule_and_task_that_is_unseen_is_never_drawn():
    rng = Random(0)
    for _ in range(3000):
        setting, task = MIXES["broad"](rng)
        if setting.name == "rule" and setting.developer is not None:
            (forbidden,) = re.findall(r"\d", setting.developer.instructions or "")
            assert not is_unseen_rule(int(forbidden), task.name)


def test_rules_are_paired_with_tasks_that_training_never_sees():
    unseen = [
        (digit, task)
        for digit in range(10)
        for task in ("product", "sum", "look-up", "list", "write a digit", "free text")
        if is_unseen_rule(digit, task)
    ]
    assert 3 <= len(unseen) <= 20
    assert not any(is_unseen_rule(5, task) for task in ("product", "sum", "look-up", "list"))


def test_a_calculator_is_called_where_there_is_something_to_calculate():
    rng = Random(0)
    for task in (Products(), Sums(), TooLong(), FollowUp()):
        for _ in range(100):
            problem = calculator(rng).applied(rng, task.draw(rng, "train"))
            call, output, final = problem.turns("low")[-3:]
            assert (call.recipient, call.channel) == (CALCULATOR, "commentary")
            assert output.text == final.text == str(value(json.loads(call.text)["expression"]))
    for task in (Lookup(), Lists(), OutOfReach(), Forbidden()):
        problem = calculator(rng).applied(rng, task.draw(rng, "train"))
        assert not any(message.recipient for message in problem.turns("high"))


def test_a_tool_sum_adds_up_between_its_calls():
    rng = Random(0)
    for _ in range(100):
        problem = look_up_tool(rng).applied(rng, ToolSum().draw(rng, "train"))
        outputs = [int(call.output) for call in problem.calls]
        assert sum(outputs) == int(problem.answer)
        words = [json.loads(call.arguments)["word"] for call in problem.calls]
        assert all(word in problem.question for word in words)
        said = [m.text for m in problem.turns("medium") if m.channel == "analysis"]
        assert said == [
            f"{sum(outputs[:n])}+{outputs[n]}={sum(outputs[: n + 1])}"
            for n in range(1, len(outputs))
        ]
        kinds = [m.channel for m in problem.turns("medium")[1:]]
        assert kinds[:5] == ["commentary", "commentary", "commentary", "commentary", "analysis"]


def test_without_a_calculator_long_numbers_are_too_hard():
    rng = Random(0)
    for _ in range(100):
        problem = other_tool(rng).applied(rng, TooLong().draw(rng, "train"))
        assert problem.answer == TOO_HARD
        assert not problem.calls


def test_a_rule_keeps_its_digit_out_of_final_and_nothing_else_changes():
    rng = Random(0)
    for task in (Products(), Sums(), Lookup(), Lists()):
        for _ in range(100):
            bare = task.draw(rng, "train")
            ruled = digit_rule(rng, 5).applied(rng, bare)
            assert "5" not in ruled.answer
            if "5" not in bare.answer:
                assert ruled.answer == bare.answer
            spelt = ruled.answer
            for digit, word in enumerate(DIGIT_WORDS):
                spelt = spelt.replace(word, str(digit))
            assert spelt.replace(" ", "") == bare.answer.replace(" ", "")


def test_free_text_is_answered_honestly():
    assert {p.answer for p in drawn(Forbidden(), 50)} == {FORBIDDEN}
    assert REFUSAL in {p.answer for p in drawn(OutOfReach(), 50)}


def test_a_problem_grades_and_answers_only_what_is_right():
    problem = calculator(Random(0)).applied(Random(0), TooLong().draw(Random(0), "train"))
    said = problem.turns("low")[1:]
    assert problem.is_right(said)
    assert not problem.is_right(said[:-1])
    assert problem.prompt("low").messages == problem.conversation("low").messages[:3]


def test_opening_and_row_join_to_the_rendered_conversation():
    encoding, rng = load_vocabulary("nano"), Random(0)
    for _ in range(100):
        setting, task = MIXES["broad"](rng)
        problem = setting.applied(rng, task.draw(rng, "train"))
        effort = rng.choice(EFFORTS)
        tokens, learnt = row_of(problem, effort, encoding)
        whole = render(problem.conversation(effort, "2031-05-06"), encoding, mode="training")
        assert opening_of(problem, effort, "2031-05-06", encoding) + tokens == whole.tokens
        last = max(n for n, m in enumerate(problem.turns(effort)) if m.role == "user")
        answered = Conversation(problem.turns(effort)[last + 1 :])
        for message in answered:
            if message.role == "assistant":
                text = encoding.decode([t for t, own in zip(tokens, learnt, strict=True) if own])
                assert message.text in text


@pytest.mark.parametrize("name", [*SUITE, *STRESS])
def test_a_row_of_the_suite_draws_different_problems_the_same_each_time(name):
    row = (SUITE | STRESS)[name]
    few, more = row.problems(name, 10, seed=3), row.problems(name, 15, seed=3)
    assert few == more[: len(few)]
    assert len({sameness(problem) for problem in more}) == len(more) >= 6
    assert all(isinstance(problem, Problem) and problem.name == name for problem in more)


@pytest.mark.parametrize("name", ["product 2x2 digits", "rule against 5, sum", "follow-up"])
def test_terms_in_another_order_are_no_other_problem(name):
    problems = SUITE[name].problems(name, 400, seed=1)
    terms = [re.findall(r"[+*-]?\d+", problem.expression) for problem in problems]
    unordered = {
        (*sorted(term.lstrip("*+") for term in each), *(turn.question for turn in problem.history))
        for each, problem in zip(terms, problems, strict=True)
    }
    assert len(unordered) == len(problems) > 200

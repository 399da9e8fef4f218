"""nano's problems are right: answers by independent arithmetic, every line of an analysis true,
nothing held out is trained on, and each setting changes only what it documents."""

import json
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest

from oss_lab.harmony.messages import EFFORTS, Conversation
from oss_lab.harmony.render import render
from oss_lab.nano.suite import STRESS, SUITE, problem_key
from oss_lab.nano.tasks import Problem, lists, questions, sums_and_products, write_digit
from oss_lab.nano.tasks.dialogue import FollowUp
from oss_lab.nano.tasks.free_text import FORBIDDEN, REFUSAL, Forbidden, OutOfReach, SmallTalk
from oss_lab.nano.tasks.lists import KINDS, Lists
from oss_lab.nano.tasks.lookup import Lookup
from oss_lab.nano.tasks.mix import MIXES, SMALL_TASKS, is_unseen_rule
from oss_lab.nano.tasks.problem import is_held_out
from oss_lab.nano.tasks.settings import (
    CALCULATOR,
    DIGIT_WORDS,
    make_calculator,
    make_digit_rule,
    make_look_up_tool,
    make_other_tool,
)
from oss_lab.nano.tasks.sums_and_products import (
    TOO_HARD,
    Products,
    Sums,
    TooLong,
    product_key,
    sum_key,
)
from oss_lab.nano.tasks.tool_sum import ToolSum
from oss_lab.nano.tasks.write_digit import WISHES, WriteDigit
from oss_lab.nano.training.data import encode_opening, encode_row
from oss_lab.tokenizer import load_vocabulary

ARITHMETIC = [Products(), Sums(), FollowUp(), *(Sums(terms=n) for n in range(2, 7))]


def draw_problems(task, n=300, split="train", seed=0):
    rng = Random(seed)
    return [task.draw(rng, split) for _ in range(n)]


def value(expression: str) -> int:
    """Evaluate +, - and * of integers, without eval."""
    total = 0
    for sign, product in re.findall(r"([+-]?)([\d*]+)", expression):
        factor = 1
        for number in product.split("*"):
            factor *= int(number)
        total += -factor if sign == "-" else factor
    return total


@pytest.mark.parametrize("name", SMALL_TASKS)
def test_a_small_task_is_a_mix_by_itself(name):
    setting, task = MIXES[name](Random(0))
    assert (setting.name, task) == ("plain", SMALL_TASKS[name])
    for problem in draw_problems(task, 20) + draw_problems(task, 20, "held_out"):
        assert value(problem.expression or "") == int(problem.answer)
        assert len(problem.thoughts["medium"]) < len(problem.thoughts["high"])


@pytest.mark.parametrize("task", ARITHMETIC, ids=repr)
def test_an_answer_is_the_value_of_the_calculators_expression(task):
    for problem in draw_problems(task):
        assert problem.expression is not None
        assert int(problem.answer) == int(problem.value or "") == value(problem.expression)


@pytest.mark.parametrize("task", [Products(), Sums()], ids=repr)
def test_the_expression_has_the_numbers_of_the_question(task):
    for problem in draw_problems(task):
        numbers = re.findall(r"\d+", problem.expression or "")
        assert re.findall(r"\d+", problem.question) == numbers


@pytest.mark.parametrize("task", ARITHMETIC, ids=repr)
def test_every_line_at_high_effort_is_true_and_the_last_result_is_the_answer(task):
    for problem in draw_problems(task):
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


def test_digits_and_carries_of_an_analysis_are_consistent():
    """Each carry is the tens digit of the line before; each borrow is its 1."""
    for problem in draw_problems(Products(lengths=(3, 2)), 100) + draw_problems(Sums(terms=2), 100):
        lines = problem.thoughts["high"].splitlines()
        for before, after in pairwise(lines):
            if plus := re.fullmatch(r"\d[*+]\d\+(\d)=\d\d", after):
                previous = re.fullmatch(r"\d[*+]\d\+\d=(\d)\d", before)
                assert plus[1] == (previous[1] if previous else "0")
            if minus := re.fullmatch(r"1?\d-\d-(\d)=\d", after):
                previous = re.fullmatch(r"(1?)\d-\d-\d=\d", before)
                assert minus[1] == ("1" if previous and previous[1] else "0")


def test_medium_effort_writes_results_only():
    for problem in draw_problems(Products(lengths=(3, 2)), 100):
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
    for problem in draw_problems(Sums(terms=4), 100):
        for line in problem.thoughts["medium"].splitlines():
            left, right = line.split("=")
            assert value(left) == int(right)


def test_low_effort_never_thinks():
    rng = Random(0)
    for _ in range(300):
        setting, task = MIXES["broad"](rng)
        assert setting.apply(rng, task.draw(rng, "train")).thoughts["low"] == ""


def test_only_two_terms_have_a_negative_running_total():
    for problem in draw_problems(Sums(), 1000):
        terms = [int(t) for t in re.findall(r"[+-]?\d+", problem.expression or "")]
        totals = [sum(terms[: n + 1]) for n in range(len(terms))]
        assert len(terms) == 2 or min(totals) >= 0


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_a_look_up_follows_the_list(hops):
    for problem in draw_problems(Lookup(hops=hops)):
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
def test_a_list_is_processed_as_the_question_says(kind):
    expected = {
        "repeat": lambda items: items,
        "reverse": lambda items: items[::-1],
        "sort": sorted,
        "count": lambda items: [len(items)],
        "largest": lambda items: [max(items)],
    }[kind]
    for problem in draw_problems(Lists(kind)):
        items = [int(d) for d in re.findall(r"\d", problem.question)]
        assert [int(d) for d in problem.answer.split()] == expected(items)


def turns_of(problem):
    """The problem and those before it in the conversation."""
    for earlier in problem.history:
        yield from turns_of(earlier)
    yield replace(problem, history=())


def keys_of(problem):
    """The keys that must be new for this problem and those before it, read from the question.

    Names and analyses are not used: rows of the suite and settings write their own.
    """
    for turn in turns_of(problem):
        if turn.expression is not None:
            numbers = [int(term) for term in re.findall(r"[+-]?\d+", turn.expression)]
            yield product_key(*numbers) if "*" in turn.expression else sum_key(numbers)
        elif turn.calls:
            yield sum_key([int(call.output) for call in turn.calls])
        if match := re.match(r"(\w+ is \w+(?:, \w+ is \w+)+)\..*What is (.+?)\?", turn.question):
            stands_for = dict(re.findall(r"(\w+) is (\w+)", match[1]))
            for word in re.split(r", | and ", match[2]):
                while word in stands_for:
                    yield "=", word, stands_for[word]
                    word = stands_for[word]
        for kind, wordings in lists.WORDINGS.items():
            for wording in wordings:
                asked = re.escape(wording).replace(r"\{\}", r"(\d(?: \d)+)")
                if match := re.match(asked, turn.question):
                    yield kind, *(int(item) for item in match[1].split())


def questions_in(problem):
    """Every question word for word, without the requested format but with what belongs to it:
    numbers of earlier turns and of tools."""
    for turn in turns_of(problem):
        question = turn.question
        for wish in WISHES:
            question = question.removesuffix(wish)
        yield question, turn.expression, tuple(call.output for call in turn.calls)


@pytest.fixture(scope="module")
def training_problems():
    """Problems that training draws."""
    rng, problems = Random(0), []
    for _ in range(6000):
        setting, task = MIXES["broad"](rng)
        problems.append(setting.apply(rng, task.draw(rng, "train")))
    return problems


@pytest.fixture(scope="module")
def evaluation_problems():
    """The first problems of every row of the suite."""
    return {name: row.draw_problems(name, 60, seed=1) for name, row in (SUITE | STRESS).items()}


def test_nothing_held_out_is_trained(training_problems):
    seen = Counter()
    for problem in training_problems:
        for key in keys_of(problem):
            seen[key[0]] += 1
            assert not is_held_out(*key), problem
    assert min(seen[sign] for sign in "*+=") > 500
    assert min(seen[kind] for kind in KINDS) > 50


def test_everything_evaluated_is_held_out(evaluation_problems):
    """Every step of every problem, except in free text, which has no keys."""
    without = {"rule against 5, write it", "no rule, write a digit"}
    without |= {"out of reach", "small talk", "forbidden subject"}
    for name, problems in evaluation_problems.items():
        keys = [list(keys_of(problem)) for problem in problems]
        assert all(is_held_out(*key) for each in keys for key in each), name
        mixed = name in {"later turn", "calculator, nothing it learnt to calculate"}
        assert any(keys) if mixed else all(keys) == (name not in without), name


def test_no_question_is_both_trained_and_evaluated(training_problems, evaluation_problems):
    """The conversation before it is not shared either."""
    learned = {each for problem in training_problems for each in questions_in(problem)}
    for name, problems in evaluation_problems.items():
        assert not learned.intersection(a for p in problems for a in questions_in(p)), name


def tables():
    """Every table of words and sentences, by split."""
    return {
        name: table
        for module in (questions, write_digit)
        for name, table in vars(module).items()
        if isinstance(table, dict) and table.keys() == {"train", "held_out"}
    }


def test_held_out_words_are_not_trained():
    assert len(tables()) == 11
    for name, table in tables().items():
        for split in table.values():
            assert len(set(split)) == len(split), name
        assert not set(table["train"]) & set(table["held_out"]), name
    trained_wordings = {*sums_and_products.ENGLISH, *sums_and_products.CHINESE}
    assert not trained_wordings & set(sums_and_products.UNSEEN_WORDINGS)


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_free_text_has_the_words_and_sentences_of_its_split(split):
    """Held-out words do not appear in other training sentences either."""

    def sentences(templates, gap):
        return [re.escape(each).replace(r"\{\}", gap) for each in templates[split]]

    def one_of(words):
        return f"(?:{'|'.join(words[split])})"

    dragons = {split: ("dragon", "dragons")}
    number, q = r"\d{1,3}", questions
    allowed = {
        OutOfReach(): sentences(q.TEMPLATES, one_of(q.WORDS))
        + sentences(q.CHINESE_TEMPLATES, one_of(q.CHINESE_WORDS))
        + sentences(q.OTHER_OPERATIONS, number),
        SmallTalk(): [
            sentence
            for table in (q.GREETINGS, q.CHINESE_GREETINGS, q.WHO)
            for sentence in sentences(table, "")
        ],
        Forbidden(): sentences(q.FORBIDDEN_TEMPLATES, "") + sentences(q.OPEN, one_of(dragons)),
        WriteDigit(): sentences(write_digit.WORDINGS, number),
    }
    for task, patterns in allowed.items():
        for problem in draw_problems(task, 2000, split):
            assert any(re.fullmatch(each, problem.question) for each in patterns), problem


@pytest.mark.parametrize("task", [Sums(), Products()], ids=repr)
def test_the_order_of_terms_does_not_make_a_problem_new(task):
    for problem in draw_problems(task):
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


def test_a_calculator_is_called_if_there_is_something_to_calculate():
    rng = Random(0)
    for task in (Products(), Sums(), TooLong(), FollowUp()):
        for _ in range(100):
            problem = make_calculator(rng).apply(rng, task.draw(rng, "train"))
            call, output, final = problem.turns("low")[-3:]
            assert (call.recipient, call.channel) == (CALCULATOR, "commentary")
            assert output.text == final.text == str(value(json.loads(call.text)["expression"]))
    for task in (Lookup(), Lists(), OutOfReach(), Forbidden()):
        problem = make_calculator(rng).apply(rng, task.draw(rng, "train"))
        assert not any(message.recipient for message in problem.turns("high"))


def test_a_tool_sum_adds_up_between_its_calls():
    rng = Random(0)
    for _ in range(100):
        problem = make_look_up_tool(rng).apply(rng, ToolSum().draw(rng, "train"))
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
        problem = make_other_tool(rng).apply(rng, TooLong().draw(rng, "train"))
        assert problem.answer == TOO_HARD
        assert not problem.calls


def test_a_rule_keeps_its_digit_out_of_final_and_nothing_else_changes():
    rng = Random(0)
    for task in (Products(), Sums(), Lookup(), Lists()):
        for _ in range(100):
            bare = task.draw(rng, "train")
            ruled = make_digit_rule(rng, 5).apply(rng, bare)
            assert "5" not in ruled.answer
            if "5" not in bare.answer:
                assert ruled.answer == bare.answer
            in_digits = ruled.answer
            for digit, word in enumerate(DIGIT_WORDS):
                in_digits = in_digits.replace(word, str(digit))
            assert in_digits.replace(" ", "") == bare.answer.replace(" ", "")


def test_free_text_is_answered_honestly():
    assert {p.answer for p in draw_problems(Forbidden(), 50)} == {FORBIDDEN}
    assert REFUSAL in {p.answer for p in draw_problems(OutOfReach(), 50)}


def test_a_problem_grades_and_answers_only_what_is_right():
    problem = make_calculator(Random(0)).apply(Random(0), TooLong().draw(Random(0), "train"))
    said = problem.turns("low")[1:]
    assert problem.is_right(said)
    assert not problem.is_right(said[:-1])
    assert problem.prompt("low").messages == problem.conversation("low").messages[:3]


def test_opening_and_row_together_are_the_rendered_conversation():
    encoding, rng = load_vocabulary("nano"), Random(0)
    for _ in range(100):
        setting, task = MIXES["broad"](rng)
        problem = setting.apply(rng, task.draw(rng, "train"))
        effort = rng.choice(EFFORTS)
        tokens, learned = encode_row(problem, effort, encoding)
        whole = render(problem.conversation(effort, "2031-05-06"), encoding, mode="training")
        assert encode_opening(problem, effort, "2031-05-06", encoding) + tokens == whole.tokens
        last = max(n for n, m in enumerate(problem.turns(effort)) if m.role == "user")
        answered = Conversation(problem.turns(effort)[last + 1 :])
        for message in answered:
            if message.role == "assistant":
                text = encoding.decode([t for t, own in zip(tokens, learned, strict=True) if own])
                assert message.text in text


@pytest.mark.parametrize("name", [*SUITE, *STRESS])
def test_a_row_of_the_suite_draws_different_problems_the_same_each_time(name):
    row = (SUITE | STRESS)[name]
    few, more = row.draw_problems(name, 10, seed=3), row.draw_problems(name, 15, seed=3)
    assert few == more[: len(few)]
    assert len({problem_key(problem) for problem in more}) == len(more) >= 6
    assert all(isinstance(problem, Problem) and problem.name == name for problem in more)


@pytest.mark.parametrize("name", ["product 2x2 digits", "rule against 5, sum", "follow-up"])
def test_terms_in_another_order_are_the_same_problem(name):
    problems = SUITE[name].draw_problems(name, 120, seed=1)
    terms = [re.findall(r"[+*-]?\d+", problem.expression or "") for problem in problems]
    unordered = {
        (*sorted(term.lstrip("*+") for term in each), *(turn.question for turn in problem.history))
        for each, problem in zip(terms, problems, strict=True)
    }
    assert len(unordered) == len(problems) > 100

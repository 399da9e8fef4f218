"""The gallery's answers are right by an independent computation, new to nano, and what nano
answers."""

import json
import re
from itertools import pairwise

import pytest

from oss_lab.checkpoint.read import find_folder
from oss_lab.harmony import render
from oss_lab.harmony.messages import EFFORTS, DeveloperContent
from oss_lab.nano.gallery import ABILITIES, GALLERY, Example, ask
from oss_lab.nano.tasks import is_held_out, questions
from oss_lab.nano.tasks.free_text import FORBIDDEN, REFUSAL
from oss_lab.nano.tasks.settings import CALCULATOR_TOOL, LOOK_UP_TOOL
from oss_lab.nano.tasks.sums_and_products import TOO_HARD
from oss_lab.record.calls import ROUNDS, append_outputs
from oss_lab.tokenizer import load_vocabulary

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
FACT = re.compile(r"(\w+) is (\w+)")
LONGEST = (3, 2)  # digits of the factors that nano learns to multiply
each_example = pytest.mark.parametrize("example", GALLERY, ids=lambda example: example.name)


def numbers(text: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text)]


def terms(text: str) -> list[int]:
    """The signed terms: 62 + 44 - 59 gives [62, 44, -59]. No products."""
    return [int(sign + n) for sign, n in re.findall(r"([+-]?) ?(\d+)", text)]


def is_too_long(a: int, b: int) -> bool:
    lengths = sorted((len(str(a)), len(str(b))), reverse=True)
    return any(n > most for n, most in zip(lengths, LONGEST, strict=True))


def follow_facts(question: str) -> list[str]:
    """The word in question and what it leads to, step by step."""
    facts, _, asked = question.rpartition("What is ")
    meanings = dict(FACT.findall(facts.split(".")[0]))
    path = [asked.rstrip("?")]
    while path[-1] in meanings:
        path.append(meanings[path[-1]])
    return path


def work_out(example: Example) -> tuple[str, bool]:
    """(the right answer, whether training excludes the question), from the question alone."""
    question = example.question
    if example.name.startswith("look-up"):
        path = follow_facts(question)
        return path[-1], all(is_held_out("=", *step) for step in pairwise(path))
    if question.startswith("Sort "):
        items = numbers(question)
        return " ".join(map(str, sorted(items))), is_held_out("sort", *items)
    if question.startswith("Look up "):
        outputs = {json.loads(call)["word"]: int(n) for call, n in example.tool_outputs.items()}
        words = re.findall(r"\w+", question.removeprefix("Look up ").replace(" and add them", ""))
        words.remove("and")
        assert list(outputs) == words
        return str(sum(outputs.values())), is_held_out("+", *sorted(outputs.values()))
    if "*" in question or "乘" in question:
        a, b = numbers(question)
        reachable = not is_too_long(a, b) or CALCULATOR_TOOL in example.tools
        return str(a * b) if reachable else TOO_HARD, is_held_out("*", max(a, b), min(a, b))
    if example.history:
        ((before, answer),) = example.history
        assert int(answer) == sum(terms(before))
        value = int(answer) - numbers(question)[0]
        assert "subtract" in question
        steps = (terms(before), [int(answer), -numbers(question)[0]])
        return str(value), all(is_held_out("+", *sorted(step)) for step in steps)
    if numbers(question):
        value = str(sum(terms(question)))
        if example.instructions:
            (forbidden,) = numbers(example.instructions)
            assert str(forbidden) in value
            value = " ".join(WORDS[int(digit)] for digit in value)
        return value, is_held_out("+", *sorted(terms(question)))
    if "dragon" in question:
        return FORBIDDEN, question in questions.FORBIDDEN_TEMPLATES["held_out"]
    word = next(word for word in questions.WORDS["held_out"] if word in question)
    return REFUSAL, question.replace(word, "{}") in questions.TEMPLATES["held_out"]


@each_example
def test_the_answer_is_right_and_the_question_is_new(example):
    answer, held_out = work_out(example)
    assert example.answer == answer
    assert held_out


def test_names_differ_and_every_kind_is_there():
    assert len({example.name for example in GALLERY}) == len(GALLERY) >= 14
    assert {example.effort for example in GALLERY} == set(EFFORTS)
    product = [example for example in GALLERY if example.question == GALLERY[0].question]
    assert [example.effort for example in product] == list(EFFORTS)
    assert {tool.name for each in GALLERY for tool in each.tools} == {"calculator", "look_up"}
    assert LOOK_UP_TOOL in next(each.tools for each in GALLERY if len(each.tool_outputs) == 3)


@each_example
def test_each_description_is_one_sentence(example):
    assert re.fullmatch(r"[A-Zn][^.]*\.", example.shows)
    assert "\n" not in example.name


def test_the_calculators_outputs_are_correct():
    outputs = {
        json.loads(arguments)["expression"]: output
        for example in GALLERY
        if CALCULATOR_TOOL in example.tools
        for arguments, output in example.tool_outputs.items()
    }
    assert outputs
    for expression, output in outputs.items():
        a, b = map(int, expression.split("*"))
        assert (is_too_long(a, b), int(output)) == (True, a * b)


def test_the_far_look_up_is_beyond_the_window(reciting_lab):
    (far,) = (each for each in GALLERY if each.name == "look-up beyond the window")
    encoding = load_vocabulary("nano")
    config = json.loads((find_folder("nano") / "config.json").read_text())
    lab = reciting_lab("<|return|>")
    tokens = render(far.prompt(lab), encoding).tokens
    pair = f"{far.question.split('What is ')[1].rstrip('?')} is {far.answer}"
    rest = far.question.partition(pair)[2]
    # The word in question comes last; the header of the reply follows it.
    assert len(encoding.encode_ordinary(rest)) > config["sliding_window"]
    assert len(tokens) <= config["initial_context_length"]


@each_example
def test_a_prompt_has_the_settings_the_history_and_the_question(example, reciting_lab):
    system, *others, question = example.prompt(reciting_lab("<|return|>")).messages
    assert system.content[0].reasoning_effort == example.effort
    assert (question.role, question.text) == ("user", example.question)
    has_setting = example.instructions is not None or bool(example.tools)
    if has_setting:
        (content,) = others.pop(0).content
        assert isinstance(content, DeveloperContent)
        assert content.instructions == example.instructions
        declared = content.tools["functions"].tools if content.tools else ()
        assert declared == example.tools
    said = [(message.role, message.channel, message.text) for message in others]
    assert said == [
        each
        for asked, answer in example.history
        for each in (("user", None, asked), ("assistant", "final", answer))
    ]


CALL = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"x":"1"}<|call|>'
CALLED = Example("call", "?", "low", "7", "A call.", tool_outputs={'{"x":"1"}': "7"})


def test_known_outputs_are_fed_back_until_the_rounds_are_used_up(reciting_lab):
    lab = reciting_lab(CALL)
    replies = ask(lab, CALLED)
    assert len(replies) == ROUNDS
    assert replies[1].prompt is not None
    *_, call, output = replies[1].prompt.messages
    assert (call.recipient, call.text) == ("functions.f", '{"x":"1"}')
    assert (output.author.name, output.text, output.recipient) == ("functions.f", "7", "assistant")
    assert output.channel == "commentary"


def test_an_unknown_output_or_an_answer_ends_it(reciting_lab):
    (reply,) = ask(reciting_lab(CALL.replace("1", "2")), CALLED)
    assert reply.stop == "call"
    assert append_outputs(reply, lambda call: {'{"x":"1"}': "7"}.get(call.arguments)) is None
    assert append_outputs(reply, lambda call: {'{"x":"2"}': "7"}.get(call.arguments))
    (reply,) = ask(reciting_lab("<|channel|>final<|message|>7<|return|>"), CALLED)
    assert append_outputs(reply, lambda _: "8") is None
    (reply,) = ask(reciting_lab(CALL), CALLED, max_tokens=12)
    assert reply.stop == "length"


def test_abilities_are_listed_in_one_line():
    assert "\n" not in ABILITIES
    assert ABILITIES.endswith(".")


@each_example
def test_the_shipped_nano_gives_the_answers_of_the_gallery(nano, example):
    last = ask(nano, example, max_tokens=512)[-1]
    assert (last.final == example.answer) is example.reached, last.final
    assert last.stop == "return"

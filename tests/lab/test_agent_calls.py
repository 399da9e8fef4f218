"""Calls that a model wrote: every malformed one becomes text for the model, never an exception."""

import datetime
import enum
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from oss_lab.agents import Tool
from oss_lab.agents.arguments import DEEPEST, LONGEST, CallError, read_arguments
from oss_lab.agents.calls import find_name, find_open_calls, run_call
from oss_lab.agents.outputs import mend_text, shorten_output, to_text
from oss_lab.harmony import Message
from oss_lab.nano.calculator import calculate
from oss_lab.nano.tasks.settings import CALCULATOR_TOOL
from oss_lab.record.reply import ToolCall


def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


TOOLS = {"functions.add": Tool.of(add)}
TOOLS_BY_SCHEMA = {
    "functions.add": Tool.of(
        add,
        {
            "name": "add",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                "required": ["a"],
                "additionalProperties": False,
            },
        },
    )
}


def call(arguments, name="functions.add", tools=TOOLS, **options) -> Any:
    return run_call(ToolCall(name, arguments, "commentary"), tools, **options)


NESTED = "[" * 500 + "]" * 500
DEEP_NESTED = "[" * 200_000 + "]" * 200_000
MALFORMED = {
    "broken JSON": ('{"a": 1', "not valid JSON"),
    "two objects": ('{"a": 1}{"a": 2}', "not valid JSON"),
    "text": ("one plus two", "not valid JSON"),
    "a wrong type": ('{"a": "one"}', "a is 'one'"),
    "a list for a number": ('{"a": [1]}', "a is [1]"),
    "a missing field": ('{"b": 2}', "a is missing"),
    "an unknown field": ('{"a": 1, "c": 3}', "no field 'c'"),
    "a list": ("[1, 2]", "a list, not a JSON object"),
    "a number": ("12", "a number, not a JSON object"),
    "null": ("null", "null, not a JSON object"),
    "a string": ('"one"', "a string, not a JSON object"),
    "huge": (json.dumps({"a": "1" * LONGEST}), "at most 1,000,000 are read"),
    "nested": (f'{{"a": {NESTED}}}', f"nested more than {DEEPEST} deep"),
    "nested beyond recursion": (f'{{"a": {DEEP_NESTED}}}', f"nested more than {DEEPEST} deep"),
    "a number without end": (f'{{"a": {"9" * 5000}}}', "cannot be read"),
    "an infinite number": ('{"a": 1e999}', "1e999, which is too large"),
    "NaN": ('{"a": NaN}', "NaN, which is not a JSON value"),
    "half a surrogate pair": ('{"a": "\\ud800"}', "half of a surrogate pair"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_arguments_are_explained_to_the_model(name):
    arguments, reason = MALFORMED[name]
    record = call(arguments)
    assert record.status == "malformed"
    assert record.output.startswith("error: ")
    assert reason in record.output
    assert record.output.endswith("takes a JSON object with a (integer), b (integer, optional)")
    assert record.call.arguments == arguments
    assert len(record.output) < 500
    record.message.text.encode()  # it can be tokenized


BY_SCHEMA = {
    "a missing field": "'a' is a required property",
    "an unknown field": "'c' was unexpected",
}
"""Where the package jsonschema has its own words."""


@pytest.mark.parametrize("name", [each for each in MALFORMED if "type" not in each])
def test_a_schema_explains_the_same(name):
    arguments, reason = MALFORMED[name]
    record = call(arguments, tools=TOOLS_BY_SCHEMA)
    assert record.status == "malformed"
    if name not in ("a list for a number",):
        assert BY_SCHEMA.get(name, reason) in record.output


def test_a_schema_names_the_wrong_type():
    record = call('{"a": "one", "b": true}', tools=TOOLS_BY_SCHEMA)
    assert "a: 'one' is not of type 'integer'; b: True is not of type 'integer'" in record.output


CORRECTED = {
    "fence": ('```json\n{"a": 2}\n```', "Markdown fence"),
    "string": (json.dumps('{"a": 2}'), "inside a JSON string"),
    "Python": ("{'a': 2}", "Python literal"),
    "twice": ('{"a": 1, "a": 2}', "more than once"),
    "text for a number": ('{"a": "2"}', "it was converted"),
}


@pytest.mark.parametrize("name", CORRECTED)
def test_a_form_with_one_reading_is_read_and_noted(name):
    arguments, note = CORRECTED[name]
    record = call(arguments)
    assert (record.status, record.output) == ("ok", "3")
    assert note in " ".join(record.notes)


def test_well_formed_arguments_have_no_notes():
    assert call('{"a": 2, "b": 5}').notes == ()


def test_a_raw_line_break_in_a_string_is_read_and_noted():
    arguments, notes = read_arguments('{"code": "a\nb"}')
    assert arguments == {"code": "a\nb"}
    assert "control character" in notes[0]


def test_no_text_is_no_arguments():
    def now() -> str:
        return "12:00"

    record = call("", "functions.now", {"functions.now": Tool.of(now)})
    assert (record.status, record.output) == ("ok", "12:00")
    assert "no arguments" in record.notes[0]


def test_a_python_literal_with_code_is_not_run():
    with pytest.raises(CallError, match="not valid JSON"):
        read_arguments("{'a': __import__('os').getpid()}")


def test_an_unknown_tool_is_explained_and_nothing_is_run():
    record = call("{}", "functions.subtract")
    assert record.status == "unknown tool"
    assert "there is no tool 'functions.subtract'" in record.output
    assert "functions.add" in record.output
    assert call("{}", "functions.add", tools={}).output == "error: there are no tools"


@pytest.mark.parametrize(
    "name", ["add", "functions.functions.add", "functions.functions.functions.add"]
)
def test_a_namespace_left_out_or_repeated_is_read(name):
    record = call('{"a": 2}', name)
    assert (record.status, record.output) == ("ok", "3")
    assert record.notes == (f"{name!r} was read as 'functions.add'",)
    assert record.message.author.name == name  # the output answers the call as it was written


def test_a_name_that_two_tools_have_is_not_guessed():
    assert find_name("open", {"browser.open": 0, "files.open": 0}) is None
    assert find_name("open", {"browser.open": 0}) == "browser.open"
    assert find_name("functions.browser.open", {"browser.open": 0}) == "browser.open"
    assert find_name("other.open", {"browser.open": 0}) is None


def test_an_exception_of_the_tool_is_data():
    def divide(a: float, b: float) -> float:
        return a / b

    record = call('{"a": 1, "b": 0}', "functions.divide", {"functions.divide": Tool.of(divide)})
    assert record.status == "failed"
    assert record.output == "error: ZeroDivisionError: float division by zero"


def test_a_sentence_of_ours_reaches_the_model_without_its_class():
    tools = {"functions.calculator": Tool.of(calculate, CALCULATOR_TOOL)}
    record = call('{"expression": "7/2"}', "functions.calculator", tools)
    assert record.status == "failed"
    assert record.output == "error: 7/2 is not a whole number"


def test_a_call_error_inside_the_tool_counts_as_malformed():
    def look_up(word: str) -> str:
        raise CallError(f"there is no word {word!r}")

    record = call('{"word": "x"}', "functions.look_up", {"functions.look_up": Tool.of(look_up)})
    assert record.status == "malformed"
    assert "there is no word 'x'" in record.output


def test_ctrl_c_in_a_tool_is_not_swallowed():
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call("{}", "functions.stop", {"functions.stop": Tool.of(stop)})


@dataclass
class Point:
    x: int
    y: int


class Color(enum.Enum):
    RED = "red"


class Weather(BaseModel):
    city: str
    degrees: float


OUTPUTS = {
    "text": ("ü\n", "ü\n"),
    "a number": (7, "7"),
    "nothing": (None, "null"),
    "a list": ([1, "é", None], '[1,"é",null]'),
    "a dataclass": (Point(1, 2), '{"x":1,"y":2}'),
    "a pydantic model": (Weather(city="Rome", degrees=21.5), '{"city":"Rome","degrees":21.5}'),
    "an enum": (Color.RED, '"red"'),
    "a date": (datetime.date(2026, 12, 1), '"2026-12-01"'),
    "an array": (np.arange(3), "[0,1,2]"),
    "a NumPy number": ({"n": np.float32(0.5)}, '{"n":0.5}'),
    "half a surrogate pair": ("a\ud800b", "a\ufffdb"),
    "two halves": ("\ud83d\ude00", "😀"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_becomes_text(name):
    value, text = OUTPUTS[name]
    assert to_text(value) == text


def test_a_result_without_a_text_form_is_an_error_and_not_a_repr():
    def make() -> object:
        return object()

    record = call("{}", "functions.make", {"functions.make": Tool.of(make)})
    assert record.status == "failed"
    assert "neither text nor JSON (object;" in record.output
    loop = []
    loop.append(loop)
    for value in (loop, b"\xff", open, lambda: 0, iter([1])):
        with pytest.raises(CallError, match="neither text nor JSON"):
            to_text(value)


def test_a_long_output_is_cut_with_a_remark():
    def repeat(n: int) -> str:
        return "x" * n

    tools = {"functions.repeat": Tool.of(repeat)}
    record = call('{"n": 120}', "functions.repeat", tools, longest=100)
    assert record.output == "x" * 100 + "\n[20 more characters were cut]"
    assert record.cut == 20
    assert shorten_output("x" * 100, 100) == ("x" * 100, 0)


def test_mended_text_can_be_encoded():
    for code in (0xD800, 0xDBFF, 0xDC00, 0xDFFF):
        mend_text(f"a{chr(code)}b{chr(code)}").encode()


def test_only_calls_at_the_end_wait():
    question = Message.of("user", "?")
    first = Message.of("assistant", "{}", channel="commentary", recipient="functions.a")
    second = Message.of("assistant", "{}", channel="commentary", recipient="functions.b")
    output = Message.of("tool", "1", name="functions.a")
    answer = Message.of("assistant", "1", channel="final")
    assert [each.name for each in find_open_calls([question, first, second, output])] == [
        "functions.b"
    ]
    assert find_open_calls([question, first, answer]) == ()
    assert find_open_calls([question, first, question]) == ()

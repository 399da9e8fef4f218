"""Tools from Python functions and JSON schemas: their description, and the check of arguments."""

import datetime
import enum
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from oss_lab.agents import Agent, ScriptedModel, Tool, write_answer
from oss_lab.agents.arguments import DEEPEST, CallError
from oss_lab.agents.json_schema import check_schema, find_problems, join_problems
from oss_lab.errors import LabError
from oss_lab.harmony import ToolDescription, describe_tools
from oss_lab.nano.tasks.settings import CALCULATOR_TOOL


class Unit(enum.Enum):
    CELSIUS = "celsius"
    KELVIN = "kelvin"


class Place(BaseModel):
    city: str
    country: str | None = None


@dataclass
class Range:
    first: int
    last: int


class Tree(BaseModel):
    value: int
    children: list["Tree"] = []


def forecast(
    place: Place,
    day: datetime.date,
    unit: Unit = Unit.CELSIUS,
    hours: Annotated[int, Field(ge=1, le=24)] = 24,
) -> str:
    """Forecast the weather.

    Args:
        place: where.
        day: when.
    """
    return f"{place.city} {day:%d.%m.} {unit.name} {hours}"


def test_a_simple_function_looks_as_in_a_chat():
    def add(a: int, b: float | None = None, how: Literal["up", "down"] = "up") -> float:
        """Add two numbers.

        Args:
            a: the first.
        """
        return a + (b or 0)

    assert Tool.of(add).description == describe_tools([add])[0]


def test_the_types_of_pydantic_are_described_without_references():
    description = Tool.of(forecast).description
    assert description.name == "forecast"
    assert description.description == "Forecast the weather."
    schema = description.parameters
    text = json.dumps(schema)
    assert "$ref" not in text
    assert "$defs" not in text
    assert "title" not in text
    assert schema["required"] == ["place", "day"]
    assert schema["properties"]["place"]["description"] == "where."
    assert schema["properties"]["place"]["properties"]["country"]["nullable"] is True
    assert schema["properties"]["unit"]["enum"] == ["celsius", "kelvin"]
    assert schema["properties"]["hours"]["maximum"] == 24


def test_arguments_arrive_with_the_types_of_the_hints():
    arguments = '{"place": {"city": "Rome"}, "day": "2026-12-01", "unit": "kelvin"}'
    assert Tool.of(forecast).call(arguments) == ("Rome 01.12. KELVIN 24", ())


def test_constraints_hold():
    arguments = '{"place": {"city": "Rome"}, "day": "2026-12-01", "hours": 25}'
    with pytest.raises(CallError, match="hours is 25: Input should be less than or equal to 24"):
        Tool.of(forecast).call(arguments)
    with pytest.raises(CallError, match=r"place\.city is missing"):
        Tool.of(forecast).call('{"place": {}, "day": "2026-12-01"}')


def test_dataclasses_and_types_that_contain_themselves():
    def count(range: Range, tree: Tree) -> int:
        return range.last - range.first + len(tree.children)

    tool = Tool.of(count)
    children = tool.description.parameters["properties"]["tree"]["properties"]["children"]
    assert children["items"] == {"type": "object"}
    arguments = (
        '{"range": {"first": 1, "last": 4}, "tree": {"value": 1, "children": [{"value": 2}]}}'
    )
    assert tool.call(arguments) == (4, ())


def test_defaults_are_those_of_the_function():
    marker = object()

    def show(a: int, other: Any = marker) -> bool:
        return other is marker

    assert Tool.of(show).call('{"a": 1}') == (True, ())


def test_names_that_pydantic_reserves_are_usable():
    def show(model_config: int, schema: int, _a: int, json: int) -> int:
        return model_config + schema + _a + json

    arguments = '{"model_config": 1, "schema": 2, "_a": 3, "json": 4}'
    assert Tool.of(show).call(arguments) == (10, ())


def test_methods_and_partial_objects():
    class Counter:
        def __init__(self):
            self.n = 0

        def add(self, by: int) -> int:
            """Count."""
            self.n += by
            return self.n

    counter = Counter()
    tool = Tool.of(counter.add)
    assert tool.name == "add"
    assert [tool.call('{"by": 2}')[0], tool.call('{"by": 2}')[0]] == [2, 4]


async def later(a: int) -> int:
    return a


def without_hint(a):
    return a


def many(*a: int):
    return a


def unknown_type(a: "Missing") -> None:  # pyright: ignore[reportUndefinedVariable]
    return None


def odd_type(a: memoryview) -> None:
    return None


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (later, "later is an async function; give an ordinary one"),
        (without_hint, "parameter a of tool without_hint has no type hint"),
        (many, "tool calls pass arguments by name"),
        (lambda a: a, "has no type hint"),
        (unknown_type, "unknown_type cannot be read"),
        (odd_type, "odd_type cannot be checked"),
        (3, "expected a Python function, got int"),
    ],
)
def test_a_function_that_cannot_be_a_tool_is_refused_in_one_sentence(function, sentence):
    with pytest.raises(LabError, match=sentence):
        Tool.of(function)


def test_a_schema_with_a_function():
    tool = Tool.of(lambda expression: expression[::-1], CALCULATOR_TOOL)
    assert tool.name == "calculator"
    assert tool.call('{"expression": "12"}') == ("21", ())
    with pytest.raises(CallError, match="expression: 12 is not of type 'string'"):
        tool.call('{"expression": 12}')


def test_a_tool_without_parameters_takes_no_fields():
    tool = Tool.of(lambda: "12:00", ToolDescription("get_time", "Tells the time."))
    assert tool.call("{}") == ("12:00", ())
    with pytest.raises(CallError, match="'zone' was unexpected"):
        tool.call('{"zone": 1}')


def test_a_tool_may_take_the_text_of_the_call():
    tool = Tool(ToolDescription("python"), len, reads_text=True)
    assert tool.call("print(1)\n{") == (10, ())


SCHEMA = {
    "type": "object",
    "properties": {
        "n": {"type": "integer", "minimum": 1, "exclusiveMaximum": 10},
        "names": {
            "type": "array",
            "items": {"type": "string", "pattern": "^[a-z]+$"},
            "minItems": 1,
        },
        "kind": {"enum": ["a", 1, None]},
        "either": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/pair"}]},
        "one": {"oneOf": [{"type": "integer"}, {"type": "number"}]},
        "all": {"allOf": [{"minLength": 2}, {"maxLength": 3}], "type": "string"},
        "no": {"not": {"const": 3}},
        "maybe": {"type": "string", "nullable": True},
        "mixed": {"type": ["string", "null"]},
        "free": {"type": "object", "additionalProperties": {"type": "integer"}},
        "set": {"uniqueItems": True},
    },
    "dependentRequired": {"b": ["a"]},
    "$defs": {"pair": {"type": "array", "minItems": 2, "maxItems": 2}},
}
FITS = [
    {"n": 1}, {"n": 9.0}, {"names": ["a"]}, {"kind": 1}, {"kind": None}, {"either": "x"},
    {"either": [1, 2]}, {"one": 1.5}, {"all": "abc"}, {"no": 4}, {"maybe": None}, {"mixed": None},
    {"free": {"a": 1}}, {"other": 1},
]  # fmt: skip
MISFITS = {
    "n: 0 is less than the minimum of 1": {"n": 0},
    "n: 1.5 is not of type 'integer'": {"n": 1.5},
    "n: True is not of type 'integer'": {"n": True},
    "names: [] should be non-empty": {"names": []},
    "names[1]: 'B' does not match '^[a-z]+$'": {"names": ["a", "B"]},
    "kind: True is not one of ['a', 1, None]": {"kind": True},
    "either: [1] is too short": {"either": [1]},
    "all: 'a' is too short": {"all": "a"},
    "maybe: 1 is not of type 'string'": {"maybe": 1},
    "free.a: 'x' is not of type 'integer'": {"free": {"a": "x"}},
    "set: [1, 1] has non-unique elements": {"set": [1, 1]},
    "'a' is a dependency of 'b'": {"b": 1},
    "[] is not of type 'object'": [],
}


@pytest.mark.parametrize("value", FITS, ids=json.dumps)
def test_values_that_fit_a_schema(value):
    check_schema(SCHEMA)
    assert find_problems(value, SCHEMA) == []


@pytest.mark.parametrize("problem", MISFITS)
def test_values_that_do_not_fit_a_schema(problem):
    assert find_problems(MISFITS[problem], SCHEMA) == [problem]


def test_a_long_value_leaves_room_for_what_is_wrong_with_it():
    (problem,) = find_problems({"n": "x" * 1000}, SCHEMA)
    assert problem.endswith("is not of type 'integer'")
    assert len(problem) < 100


def test_a_recursive_schema_checks_the_deepest_arguments():
    schema = {"properties": {"a": {"$ref": "#"}, "b": {"type": "string"}}}
    value = {"b": 1}
    for _ in range(DEEPEST):
        value = {"a": value}
    assert find_problems(value, schema) == [f"{'a.' * DEEPEST}b: 1 is not of type 'string'"]


def test_many_problems_are_shortened():
    problems = find_problems({}, {"required": list("abcdefg")})
    assert join_problems(problems).endswith("'e' is a required property; and 2 more")


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        ({"type": "text"}, r"parameters\.type: 'text' is not valid under any"),
        (
            {"properties": {"a": {"pattern": "("}}},
            r"parameters\.properties\.a\.pattern: .* 'regex'",
        ),
        ({"items": 3}, "items: 3 is not of type 'object', 'boolean'"),
        (3, "must be a JSON schema"),
        ({"items": {"$ref": "#/$defs/no"}}, r"refers to '#/\$defs/no', which it does not contain"),
        ({"$ref": "http://127.0.0.1:9/a"}, "refers to 'http://127.0.0.1:9/a', which it does not"),
        ({"$dynamicRef": "http://127.0.0.1:9/a"}, "'http://127.0.0.1:9/a', which it does not"),
        ({"$ref": "#/x", "x": {"$ref": "#/no"}}, "refers to '#/no', which it does not contain"),
        ({"$ref": "#/required", "required": ["a"]}, "refers to '#/required', which is not a sch"),
        ({"$ref": "#/" + "a" * 5000}, "^.{128}$"),
        ({"$ref": "#"}, "refers to itself without an end"),
        ({"$ref": ""}, "refers to itself without an end"),
        ({"anyOf": [{"type": "object"}, {"$ref": "#"}]}, "refers to itself without an end"),
        ({"if": {"type": "string"}, "then": {"$ref": "#"}}, "refers to itself without an end"),
        ({"properties": {"a": {"$ref": "#"}}, "allOf": [{"$ref": "#/properties/a"}]}, "to itself"),
        ({"$schema": 5}, r"\$schema must be text, not a number"),
    ],
)
def test_a_schema_that_cannot_be_checked_is_refused(schema, sentence):
    with pytest.raises(LabError, match=sentence):
        check_schema(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}}},
        {"properties": {"a": {"$ref": "#/properties/b"}, "b": {"type": "integer"}}},
        {"properties": {"a": {"$ref": "http://a.org/n"}},
         "$defs": {"n": {"$id": "http://a.org/n", "type": "integer"}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"a": {"$ref": "#n"}},
         "definitions": {"n": {"$id": "#n", "type": "integer"}}},
        {"properties": {"a": {"$ref": "#/$defs/m"}},
         "$defs": {"m": {"$id": "http://a.org/m", "$ref": "#/$defs/n",
                         "$defs": {"n": {"type": "integer"}}}}},
    ],
)  # fmt: skip
def test_references_within_a_schema_count_also_if_it_is_nullable(schema):
    for each in (schema, {**schema, "nullable": True}):
        check_schema(each)
        assert find_problems({"a": 1}, each) == []
        assert find_problems({"a": "x"}, each) == ["a: 'x' is not of type 'integer'"]
        assert (find_problems(None, {**each, "type": "object"}) == []) is (each is not schema)


@pytest.mark.parametrize("keyword", ["$ref", "allOf"])
def test_fields_may_be_listed_in_a_schema_that_another_refers_to(keyword):
    inner = {"properties": {"a": {"type": "integer"}}}
    schema = (
        {"$defs": {"n": inner}, "$ref": "#/$defs/n"} if keyword == "$ref" else {keyword: [inner]}
    )
    form: Any = {"type": "function", "function": {"name": "f", "parameters": schema}}
    tool = Tool.of(lambda **given: given, form)
    assert tool.call('{"a": 1}') == ({"a": 1}, ())
    with pytest.raises(CallError, match="'b' was unexpected"):
        tool.call('{"a": 1, "b": 2}')


def test_values_and_names_in_a_schema_are_not_schemas():
    schema = {
        "properties": {"$ref": {"type": "integer"}, "nullable": True},
        "enum": [{"$ref": 1, "nullable": True}],
        "const": {"$ref": 1, "nullable": True},
        "default": {"$ref": "#/no"},
    }
    check_schema(schema)
    assert find_problems({"$ref": 1, "nullable": True}, schema) == []


def test_an_agent_refuses_two_tools_with_one_name():
    def add(a: int) -> int:
        return a

    with pytest.raises(LabError, match="has the name 'add', as an earlier tool does"):
        Agent(ScriptedModel([]), [add, Tool.of(add)])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"tools": 3}, "expected a list of tools, got 3"),
        ({"tools": "add"}, "expected a list of tools, got 'add'"),
        ({"temprature": 1}, "there is no keyword 'temprature'; did you mean 'temperature'"),
        ({"continue_from": "x"}, "there is no keyword 'continue_from'"),
    ],
)
def test_an_agent_refuses_arguments_it_cannot_use(arguments, sentence):
    with pytest.raises(LabError, match=sentence):
        Agent(ScriptedModel([]), **arguments)


@pytest.mark.parametrize("model", ["nano", None, 3])
def test_an_agent_needs_a_model(model):
    with pytest.raises(LabError, match=r"expected a model such as `oss_lab\.load"):
        Agent(model)


def test_a_budget_is_a_budget():
    for agent in (Agent(ScriptedModel([]), budget=5), Agent(ScriptedModel([]), budget=0)):  # pyright: ignore
        with pytest.raises(LabError, match=r"expected a Budget such as Budget\(calls=5\), got"):
            agent.run("?")


def test_a_conversation_that_does_not_declare_the_tools_is_refused():
    def add(a: int) -> int:
        return a

    plain = Agent(ScriptedModel([write_answer("1")])).conversation("?")
    with pytest.raises(LabError, match=r"does not declare the tool 'functions\.add'"):
        Agent(ScriptedModel([write_answer("1")]), [add]).run(plain)

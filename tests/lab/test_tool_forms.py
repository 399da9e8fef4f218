"""Tools in OpenAI's forms and Python functions become ToolDescriptions, or the reason for refusal
is named."""

import functools
import random
from enum import Enum
from typing import Any, Literal, Optional  # noqa: F401 (a type hint below is text)

import pytest

from oss_lab.errors import HarmonyWarning, LabError
from oss_lab.harmony import (
    Conversation,
    DeveloperContent,
    Message,
    ToolDescription,
    describe_tools,
    make_function_tools,
    render,
)
from oss_lab.harmony.messages import ROLES
from oss_lab.tokenizer import load_vocabulary

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FLAT = {"type": "function", "name": "weather", "description": "Now.", "parameters": SCHEMA}
WEATHER = ToolDescription("weather", "Now.", SCHEMA)


class Color(Enum):
    RED = "red"


def forecast(
    city: str,
    days: int = 3,
    unit: Literal["C", "F"] = "C",
    hours: list[int] | None = None,
) -> str:
    """Forecast the weather
    of a city.

    More about it.

    Args:
        city: Its name, such as
            "Bonn": no country.
        days (int, optional): How many days.
        hours, unit: Which ones.

    Returns:
        city: not about the parameter.
    """
    raise AssertionError("a tool is only described here")


FORECAST = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": 'Its name, such as "Bonn": no country.'},
        "days": {"type": "integer", "description": "How many days.", "default": 3},
        "unit": {
            "type": "string",
            "enum": ["C", "F"],
            "description": "Which ones.",
            "default": "C",
        },
        "hours": {
            "type": "array",
            "items": {"type": "integer"},
            "nullable": True,
            "description": "Which ones.",
            "default": None,
        },
    },
    "required": ["city"],
}


def describe(tool: Any) -> ToolDescription:
    (description,) = describe_tools([tool])
    return description


def refusal(*tools: Any) -> str:
    with pytest.raises(LabError) as caught:
        describe_tools(tools)
    text = str(caught.value)
    assert "\n" not in text
    assert not text.endswith(".")
    return text


def test_a_description_is_kept_unchanged():
    odd = ToolDescription("get-weather")
    first, second = describe_tools([WEATHER, odd])
    assert first is WEATHER
    assert second is odd
    assert describe_tools(()) == ()


def test_both_forms_of_openai_give_the_same_description():
    nested = {"type": "function", "function": {k: FLAT[k] for k in FLAT if k != "type"}}
    assert describe(FLAT) == describe(nested) == WEATHER
    assert describe({**FLAT, "strict": False, "other": None}) == WEATHER
    assert describe({"type": "function", "name": "now"}) == ToolDescription("now")
    with pytest.warns(HarmonyWarning, match=r"tools\[0\]\.strict of tool weather has no effect"):
        assert describe({**FLAT, "strict": True}) == WEATHER
    describe(FLAT).parameters["properties"].clear()  # a copy
    assert describe(FLAT) == WEATHER


def test_a_function_is_described_by_its_signature_and_docstring():
    assert describe(forecast) == ToolDescription(
        "forecast", "Forecast the weather of a city.", FORECAST
    )


def test_a_function_is_rendered_like_a_description_written_by_hand():
    vocabulary = load_vocabulary("nano")

    def shown(*tools: ToolDescription) -> str:
        content = DeveloperContent(None, make_function_tools(tools))
        return render(Conversation.of(Message.of("developer", content)), vocabulary).text

    by_hand = ToolDescription("forecast", "Forecast the weather of a city.", FORECAST)
    assert shown(*describe_tools([forecast])) == shown(by_hand)
    assert "days?: number, // default: 3\n" in shown(describe(forecast))
    assert "hours?: number[] | null, // default: null\n" in shown(describe(forecast))
    assert 'unit?: "C" | "F", // default: C\n' in shown(describe(forecast))


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (list, {"type": "array"}),
        (list[Any], {"type": "array"}),
        (
            list[list[str]],
            {"type": "array", "items": {"type": "array", "items": {"type": "string"}}},
        ),
        (dict, {"type": "object"}),
        (dict[str, Any], {"type": "object"}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Literal[1, 2], {"type": "integer", "enum": [1, 2]}),
        (Literal["a", None], {"type": "string", "enum": ["a"], "nullable": True}),
        ("Optional[int]", {"type": "integer", "nullable": True}),
        (None | str, {"type": "string", "nullable": True}),
        ("list['int']", {"type": "array", "items": {"type": "integer"}}),
        ("Literal['a'] | None", {"type": "string", "enum": ["a"], "nullable": True}),
    ],
)
def test_hints_become_schemas(hint, schema):
    def f(x):
        raise AssertionError

    f.__annotations__["x"] = hint
    parameters = describe(f).parameters
    assert parameters == {"type": "object", "properties": {"x": schema}, "required": ["x"]}


@pytest.mark.parametrize(
    "hint",
    [
        Any,
        object,
        None,
        bytes,
        set[int],
        tuple[int, int],
        Color,
        int | str,
        int | str | None,
        dict[int, str],
        list[Color],
        Literal["a", 1],
        Literal[None],
        Literal[b"a"],
        Literal[Color.RED],
        "Unknown",
        "3 + ",
        "int.x",
        7,
    ],
)
def test_other_hints_are_refused_by_name(hint):
    def f(x):
        raise AssertionError

    f.__annotations__["x"] = hint
    assert "parameter x of tool f" in refusal(forecast, f)


def test_defaults_are_recorded_if_json_can_represent_them():
    def f(
        a: list[int] = [1],  # noqa: B006
        b: float = float("nan"),
        c: list[int] = (1, 2),  # pyright: ignore
        d: dict[str, int] = {1: 2},  # noqa: B006  # pyright: ignore
        e: bool = False,
        f: str = Color.RED,  # pyright: ignore
    ) -> None:
        raise AssertionError

    parameters = describe(f).parameters
    found = {key: value.get("default", "none") for key, value in parameters["properties"].items()}
    assert found == {"a": [1], "b": "none", "c": "none", "d": "none", "e": False, "f": "none"}
    assert "required" not in parameters


def test_methods_wrapped_functions_and_coroutines_are_functions():
    class Clock:
        def tell(self, zone: str) -> str:
            raise AssertionError

    @functools.lru_cache
    def cached(zone: str) -> str:
        raise AssertionError

    async def later(zone: str) -> str:
        raise AssertionError

    schema = {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]}
    found = describe_tools([Clock().tell, cached, later])
    assert [tool.name for tool in found] == ["tell", "cached", "later"]
    assert [tool.parameters for tool in found] == [schema] * 3


def test_docstrings_may_be_missing_or_irregular():
    def bare():
        raise AssertionError

    def loose(x: int, y: int):
        """Do it.
        Args:
            x: One
            two.
            z: is not a parameter
        """

    parameters = describe(loose).parameters
    assert describe(loose).description == "Do it."
    assert parameters["properties"]["x"]["description"] == "One two."
    assert parameters["properties"]["y"] == {"type": "integer"}
    assert describe(bare) == ToolDescription("bare", "", None)


def test_signatures_that_calls_cannot_fill_are_refused():
    def positional(x: int, /):
        raise AssertionError

    def many(*numbers: int):
        raise AssertionError

    def anything(**options: int):
        raise AssertionError

    def bare(x):
        raise AssertionError

    assert "parameter x of tool positional is positional-only" in refusal(positional)
    assert "parameter numbers of tool many is variadic positional" in refusal(many)
    assert "parameter options of tool anything is variadic keyword" in refusal(anything)
    assert "parameter x of tool bare has no type hint" in refusal(bare)
    assert "tool dir cannot be read" in refusal(dir)


def test_other_values_are_refused():
    def user():
        raise AssertionError

    assert "tools[0] is a lambda" in refusal(lambda x: x)
    assert "not a function" in refusal(functools.partial(forecast, "Bonn"))
    assert "not a function" in refusal(Color)
    assert "not a function" in refusal(list[int])
    assert (
        "tools[1] must be a ToolDescription, a dictionary or a Python function, not int"
        in refusal(forecast, 3)
    )
    assert "tools[0] has the name 'user', the name of a role" in refusal(user)
    assert "tools[1] has the name 'weather', as an earlier tool does" in refusal(FLAT, WEATHER)
    for tools in (None, "weather", FLAT, forecast, 3, iter([])):
        with pytest.raises(LabError, match="expected a list of tools"):
            describe_tools(tools)  # pyright: ignore


@pytest.mark.parametrize("name", ["", " ", "a b", "a\n", *ROLES])
def test_a_name_that_a_header_cannot_contain_is_refused_in_every_form(name):
    assert repr(name) in refusal({"type": "function", "function": {"name": name}})
    assert repr(name) in refusal(ToolDescription(name))


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ({}, "tools[0] is missing the field `name`"),
        ({"type": "web_search"}, "tools[0].type is 'web_search'"),
        ({"type": ["function"], "name": "f"}, "tools[0].type"),
        ({"type": "function", "function": "f"}, "tools[0].function must be a dictionary"),
        ({"type": "function", "function": {}}, "tools[0].function is missing the field `name`"),
        ({"function": {"name": "f"}, "name": "g"}, "tools[0] has the unknown key 'name'"),
        ({"name": "f", "input_schema": SCHEMA}, "tools[0] has the unknown key 'input_schema'"),
        ({"name": 3}, "the name must be a string"),
        ({"name": "get-weather"}, "'get-weather'; use letters"),
        ({"name": "f", "description": 3}, "description of tool f must be a string"),
        ({"name": "f", "parameters": [SCHEMA]}, "parameters of tool f must be a dictionary"),
        ({"name": "f", "parameters": {"x": {1}}}, "parameters of tool f must be a JSON schema"),
        ({"name": "f", "parameters": {"x": float("nan")}}, "must be a JSON schema"),
    ],
)
def test_other_dictionaries_are_refused(tool, words):
    assert words in refusal(tool)


def test_anything_is_described_or_refused_in_one_sentence():
    rng = random.Random(0)

    def any_value(depth: int = 0) -> Any:
        plain = (None, 0, "f", "", "a b", "function", {1}, float("inf"), SCHEMA, b"x", print, int)
        if depth > 2 or rng.random() < 0.6:
            return rng.choice(plain)
        if rng.random() < 0.3:
            return [any_value(depth + 1) for _ in range(rng.randrange(3))]
        keys = ("type", "function", "name", "description", "parameters", "strict", "x", 3)
        return {key: any_value(depth + 1) for key in rng.sample(keys, rng.randrange(6))}

    refusals: list[str] = []
    for _ in range(500):
        tool = any_value()
        if rng.random() < 0.7:
            tool = {**FLAT, rng.choice(["name", "parameters", "description"]): any_value()}
        try:
            describe(tool)
        except LabError as error:
            refusals.append(str(error))
    assert 50 < len(refusals) < 450
    assert not [text for text in refusals if "\n" in text]

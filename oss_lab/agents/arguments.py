"""Read the arguments of a call, which are text that a model wrote.

Nothing is guessed. A few malformed forms have only one reading, and are read with a note that says
what was wrong: a Markdown fence around the JSON, JSON inside a JSON string, a raw line break in a
string, a Python literal, and no text at all. Everything else is a `CallError`, whose sentence is
the output that the model gets.
"""

import ast
import json
import math
import re
from typing import Any

LONGEST = 1_000_000  # characters
DEEPEST = 64  # lists and objects inside each other
SHORT = 20_000  # characters of a Python literal
FENCE = re.compile(r"```[\w-]*\s*\n?(.*?)\n?\s*```", re.S)
CONTROL = re.compile(r"[\x00-\x1f\x7f]+")

Arguments = dict[str, Any]


class CallError(Exception):
    """What is wrong with a call or its tool, as one sentence for the model."""


def read_arguments(text: str) -> tuple[Arguments, tuple[str, ...]]:
    """The arguments as a dictionary, and a note for each correction that was needed.

    >>> read_arguments('{"a": 1}')
    ({'a': 1}, ())
    >>> read_arguments("{'a': True}")
    ({'a': True}, ('the arguments are a Python literal, not JSON',))

    Raises:
        CallError: the text has no such reading.
    """
    if len(text) > LONGEST:
        raise CallError(
            f"the arguments have {len(text):,} characters; at most {LONGEST:,} are read"
        )
    notes: list[str] = []
    stripped = text.strip()
    if not stripped:
        return {}, ("the call has no arguments; read as {}",)
    if fenced := FENCE.fullmatch(stripped):
        stripped = fenced[1].strip()
        notes.append("the arguments are in a Markdown fence")
    value = _read_value(stripped, notes)
    if isinstance(value, str) and value.strip().startswith("{"):
        value = _read_value(value, notes)
        notes.append("the arguments are JSON inside a JSON string")
    if not isinstance(value, dict):
        raise CallError(f"the arguments are {name_kind(value)}, not a JSON object")
    _check_depth(value)
    _check_text(value)
    return value, tuple(notes)


def _read_value(text: str, notes: list[str], *, strict: bool = True) -> Any:
    try:
        return json.loads(
            text,
            strict=strict,
            parse_constant=_refuse_constant,
            parse_float=_read_float,
            object_pairs_hook=lambda pairs: _read_pairs(pairs, notes),
        )
    except RecursionError:
        raise CallError(f"the arguments are nested more than {DEEPEST} deep") from None
    except json.JSONDecodeError as error:
        if strict and error.msg.startswith("Invalid control character"):
            value = _read_value(text, notes, strict=False)
            notes.append("a string of the arguments has a raw control character, such as a newline")
            return value
        literal = _read_literal(text)
        if literal is not None:
            notes.append("the arguments are a Python literal, not JSON")
            return literal
        near = CONTROL.sub(" ", text[max(0, error.pos - 15) : error.pos + 15])
        raise CallError(
            f"the arguments are not valid JSON: {error.msg} at character {error.pos}, near {near!r}"
        ) from None
    except ValueError as error:  # an integer with thousands of digits
        raise CallError(f"the arguments cannot be read: {error}") from None


def _read_literal(text: str) -> Arguments | None:
    """A dictionary in Python's syntax, with JSON's types; None if it is not one."""
    if not text.startswith("{") or len(text) > SHORT:
        return None
    try:
        value = ast.literal_eval(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    is_object = isinstance(value, dict) and all(isinstance(key, str) for key in value)
    return value if is_object else None


def _read_pairs(pairs: list[tuple[str, Any]], notes: list[str]) -> Arguments:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        notes.append(f"the field {twice!r} occurs more than once; the last value counts")
    return found


def _read_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise CallError(f"the arguments have the number {digits}, which is too large")
    return value


def _refuse_constant(name: str) -> None:
    raise CallError(f"the arguments have {name}, which is not a JSON value")


def _check_depth(value: Any) -> None:
    """Raise CallError for values nested too deep; without recursion."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > DEEPEST + 1:
            raise CallError(f"the arguments are nested more than {DEEPEST} deep")
        level = [
            inside
            for each in level
            if isinstance(each, dict | list)
            for inside in (each.values() if isinstance(each, dict) else each)
        ]


def _check_text(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise CallError("the arguments have half of a surrogate pair, which is not text") from None


def name_kind(value: object) -> str:
    """The JSON type of a value, with its article."""
    kinds = {str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    kinds |= {list: "a list", dict: "an object", type(None): "null"}
    return kinds.get(type(value), f"a {type(value).__name__}")

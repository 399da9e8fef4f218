"""Check a JSON value against a JSON schema: the part of the standard that tools use.

Checked are types, enums, objects, lists, bounds, patterns, and combinations with local references.
A schema with an assertion that is not checked here is refused when the tool is made, so no
argument passes unchecked. Annotations such as `title` and `format` assert nothing.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from oss_lab.agents.arguments import name_kind
from oss_lab.errors import LabError, shorten, show_safely

# fmt: off
ANNOTATIONS = {"title", "description", "default", "examples", "format", "deprecated", "readOnly",
               "writeOnly", "$schema", "$id", "$comment", "$defs", "definitions", "nullable",
               "contentEncoding", "contentMediaType"}
OTHERS = {"type", "enum", "const", "properties", "required", "additionalProperties", "items",
          "anyOf", "oneOf", "allOf", "not", "$ref", "pattern"}
# fmt: on
KINDS: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: _is_number(value) and value == int(value),
    "number": lambda value: _is_number(value),
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}
BOUNDS: dict[str, tuple[Callable[[Any, Any], bool], Callable[[Any], Any], str]] = {
    "minimum": (lambda value, bound: value >= bound, lambda value: value, "at least"),
    "maximum": (lambda value, bound: value <= bound, lambda value: value, "at most"),
    "exclusiveMinimum": (lambda value, bound: value > bound, lambda value: value, "above"),
    "exclusiveMaximum": (lambda value, bound: value < bound, lambda value: value, "below"),
    "minLength": (lambda size, bound: size >= bound, len, "a length of at least"),
    "maxLength": (lambda size, bound: size <= bound, len, "a length of at most"),
    "minItems": (lambda size, bound: size >= bound, len, "a length of at least"),
    "maxItems": (lambda size, bound: size <= bound, len, "a length of at most"),
    "minProperties": (lambda size, bound: size >= bound, len, "a length of at least"),
    "maxProperties": (lambda size, bound: size <= bound, len, "a length of at most"),
}
"""How to compare, what is compared, and the comparison in words."""
APPLIES = {"Length": str, "Items": list, "Properties": dict}
SHOWN = 5  # problems in one sentence


def check_schema(schema: Any, where: str = "parameters") -> None:
    """Raise LabError if a schema has a keyword that is not checked here, or is malformed."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise LabError(f"{where} must be a JSON schema (a dictionary), not {name_kind(schema)}")
    unknown = schema.keys() - ANNOTATIONS - OTHERS - BOUNDS.keys()
    if unknown:
        raise LabError(
            f"{where} has the keyword {min(unknown)!r}, which is not checked here; remove it, or"
            " give a Python function with type hints"
        )
    kinds = schema.get("type", [])
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        if kind not in KINDS:
            raise LabError(f"{where} has the type {kind!r}; use {', '.join(KINDS)}")
    if "pattern" in schema:
        try:
            re.compile(schema["pattern"])
        except (re.error, TypeError) as error:
            raise LabError(f"{where} has a pattern that cannot be read ({error})") from None
    for key in ("properties", "$defs", "definitions"):
        for name, inside in schema.get(key, {}).items():
            check_schema(inside, f"{where}.{key}.{name}")
    for key in ("anyOf", "oneOf", "allOf"):
        for index, inside in enumerate(schema.get(key, [])):
            check_schema(inside, f"{where}.{key}[{index}]")
    for key in ("items", "additionalProperties", "not"):
        if key in schema:
            check_schema(schema[key], f"{where}.{key}")


def find_problems(value: Any, schema: Any) -> list[str]:
    """What is wrong with a value, one phrase per problem; empty if it follows the schema.

    >>> find_problems({"a": "x"}, {"properties": {"a": {"type": "integer"}}, "required": ["b"]})
    ['b is missing', "a must be an integer, not 'x'"]
    """
    return _Checker(schema).find(value, schema, "")


class _Checker:
    def __init__(self, root: Any) -> None:
        self.root = root

    def find(self, value: Any, schema: Any, where: str) -> list[str]:
        if isinstance(schema, bool):
            return [] if schema else [f"{where or 'the value'} is not allowed"]
        if value is None and schema.get("nullable"):
            return []
        name = where or "the value"
        kinds = schema.get("type", ())
        kinds = [kinds] if isinstance(kinds, str) else list(kinds)
        if kinds and not any(KINDS[kind](value) for kind in kinds):
            wanted = " or ".join(f"{'an' if k[0] in 'aio' else 'a'} {k}" for k in kinds)
            return [f"{name} must be {wanted}, not {show(value)}"]
        problems: list[str] = []
        if "enum" in schema and not any(_is_same(value, each) for each in schema["enum"]):
            problems.append(f"{name} is {show(value)}; use one of {show(schema['enum'])}")
        if "const" in schema and not _is_same(value, schema["const"]):
            problems.append(f"{name} is {show(value)}; use {show(schema['const'])}")
        problems += self._find_bounds(value, schema, name)
        if isinstance(value, dict):
            problems += self._find_in_object(value, schema, where)
        if isinstance(value, list) and "items" in schema:
            for index, each in enumerate(value):
                problems += self.find(each, schema["items"], f"{where}[{index}]")
        return problems + self._find_in_combinations(value, schema, where)

    def _find_bounds(self, value: Any, schema: Mapping[str, Any], name: str) -> list[str]:
        problems: list[str] = []
        for keyword, (holds, measure, words) in BOUNDS.items():
            kind = next((t for end, t in APPLIES.items() if keyword.endswith(end)), None)
            fits = isinstance(value, kind) if kind else _is_number(value)
            if keyword in schema and fits and not holds(measure(value), schema[keyword]):
                problems.append(f"{name} is {show(value)}; it must have {words} {schema[keyword]}")
        pattern = schema.get("pattern")
        if pattern is not None and isinstance(value, str) and not re.search(pattern, value):
            problems.append(f"{name} is {show(value)}; it must match {pattern!r}")
        return problems

    def _find_in_object(
        self, value: dict[str, Any], schema: Mapping[str, Any], where: str
    ) -> list[str]:
        inner = f"{where}." if where else ""
        problems = [
            f"{inner}{name} is missing" for name in schema.get("required", ()) if name not in value
        ]
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        for name, each in value.items():
            if name in properties:
                problems += self.find(each, properties[name], f"{inner}{name}")
            elif others is False:
                problems.append(f"there is no field {show(f'{inner}{name}')}")
            else:
                problems += self.find(each, others, f"{inner}{name}")
        return problems

    def _find_in_combinations(self, value: Any, schema: Mapping[str, Any], where: str) -> list[str]:
        problems: list[str] = []
        if "$ref" in schema:
            problems += self.find(value, self._resolve(schema["$ref"]), where)
        for inside in schema.get("allOf", ()):
            problems += self.find(value, inside, where)
        for key in ("anyOf", "oneOf"):
            found = [self.find(value, inside, where) for inside in schema.get(key, ())]
            right = sum(not each for each in found)
            if found and not right:
                problems += min(found, key=len)
            elif key == "oneOf" and right > 1:
                problems.append(f"{where or 'the value'} fits {right} of the forms, not one")
        if "not" in schema and not self.find(value, schema["not"], where):
            problems.append(f"{where or 'the value'} is {show(value)}, which is not allowed")
        return problems

    def _resolve(self, reference: str) -> Any:
        found = self.root
        for part in reference.removeprefix("#").strip("/").split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")] if part else found
        return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_same(value: Any, other: Any) -> bool:
    """Equality of JSON values: `true` is not 1."""
    same_type = type(value) is type(other) or (_is_number(value) and _is_number(other))
    return same_type and value == other


def show(value: object) -> str:
    """A value in a sentence, shortened."""
    return shorten(show_safely(value), 60)


def join_problems(problems: Sequence[str]) -> str:
    """The first problems as one sentence."""
    more = len(problems) - SHOWN
    return "; ".join(problems[:SHOWN]) + (f"; and {more} more" if more > 0 else "")

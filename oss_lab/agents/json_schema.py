"""Check the arguments of a call against the JSON schema of its tool, with the package jsonschema.

OpenAPI's `nullable`, which Harmony's text shows as `| null`, counts too. Nothing is fetched: a
reference to another document is refused when the tool is made.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from oss_lab.agents.arguments import name_kind
from oss_lab.errors import LabError, shorten, show_safely

SHOWN = 5  # problems in one sentence


def check_schema(schema: Any, where: str = "parameters") -> None:
    """Raise LabError if this is not a JSON schema, or refers to what it does not contain."""
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import validator_for
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    if not isinstance(schema, dict):
        raise LabError(f"{where} must be a JSON schema (a dictionary), not {name_kind(schema)}")
    try:
        validator_for(schema, Draft202012Validator).check_schema(schema)
    except SchemaError as error:
        at = "".join(f".{step}" for step in error.absolute_path)
        raise LabError(f"{where}{at}: {_shorten_message(error)}") from None
    root = DRAFT202012.create_resource(schema)
    resolver = Registry().resolver_with_root(root)
    for each in _walk(schema):
        reference = each.get("$ref")
        if isinstance(reference, str):
            try:
                resolver.lookup(reference)
            except Unresolvable:
                sentence = f"{where} refers to {reference!r}, which it does not contain"
                raise LabError(sentence) from None


def find_problems(value: Any, schema: Any) -> list[str]:
    """What is wrong with a value, one phrase per problem; empty if it follows the schema.

    >>> find_problems({"a": "x"}, {"properties": {"a": {"type": "integer"}}, "required": ["b"]})
    ["a: 'x' is not of type 'integer'", "'b' is a required property"]
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match
    from jsonschema.validators import validator_for
    from referencing import Registry

    schema = _spell_out_nullable(schema)
    kind = validator_for(schema, Draft202012Validator)
    errors = kind(schema, registry=Registry()).iter_errors(value)
    return [_describe(best_match([error])) for error in errors]


def _describe(error: Any) -> str:
    where = error.json_path.removeprefix("$").removeprefix(".")
    return f"{where}: {_shorten_message(error)}" if where else _shorten_message(error)


def _shorten_message(error: Any) -> str:
    return shorten(error.message.replace(repr(error.instance), show(error.instance)), 200)


def _spell_out_nullable(schema: Any) -> Any:
    """The same schema in the words of the standard."""
    if isinstance(schema, list):
        return [_spell_out_nullable(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    inside = {name: _spell_out_nullable(each) for name, each in schema.items()}
    if inside.get("nullable") is not True:
        return inside
    del inside["nullable"]
    return {"if": {"type": "null"}, "else": inside}


def _walk(schema: Any) -> Iterator[Mapping[str, Any]]:
    """All objects in a schema."""
    if isinstance(schema, Mapping):
        yield schema
    inside = schema.values() if isinstance(schema, Mapping) else schema
    if isinstance(schema, Mapping | list):
        for each in inside:
            yield from _walk(each)


def show(value: object) -> str:
    """A value in a sentence, shortened."""
    return shorten(show_safely(value), 60)


def join_problems(problems: Sequence[str]) -> str:
    """The first problems as one sentence."""
    more = len(problems) - SHOWN
    return "; ".join(problems[:SHOWN]) + (f"; and {more} more" if more > 0 else "")

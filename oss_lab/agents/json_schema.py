"""Check the arguments of a call against the JSON schema of its tool, with the package jsonschema.

OpenAPI's `nullable`, which Harmony's text shows as `| null`, counts too. Nothing is fetched: a
reference to another document is refused when the tool is made.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import Any

from oss_lab.agents.arguments import name_kind
from oss_lab.errors import LabError, shorten, show_safely

SHOWN = 5  # problems in one sentence


def check_schema(schema: Any, where: str = "parameters") -> None:
    """Raise LabError if this is not a JSON schema, or refers to what it does not contain."""
    from jsonschema import SchemaError
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    if not isinstance(schema, dict):
        raise LabError(f"{where} must be a JSON schema (a dictionary), not {name_kind(schema)}")
    if not isinstance(schema.get("$schema", ""), str):
        raise LabError(f"{where}.$schema must be text, not {name_kind(schema['$schema'])}")
    try:
        _find_kind(schema).check_schema(schema)
        draft = DRAFT202012.detect(schema)
        resolver = Registry().resolver_with_root(draft.create_resource(schema))
        applied: dict[int, set[int]] = {}
        _check_references(schema, draft, resolver, where, applied)
        TopologicalSorter(applied).prepare()
    except SchemaError as error:
        at = "".join(f".{step}" for step in error.absolute_path)
        raise LabError(f"{where}{at}: {_shorten_message(error)}") from None
    except CycleError:
        raise LabError(f"{where} has a schema that refers to itself without an end") from None
    except RecursionError:
        raise LabError(f"{where} is nested too deep") from None


def find_problems(value: Any, schema: Any) -> list[str]:
    """What is wrong with a value, one phrase per problem; empty if it follows the schema.

    >>> find_problems({"a": "x"}, {"properties": {"a": {"type": "integer"}}, "required": ["b"]})
    ["a: 'x' is not of type 'integer'", "'b' is a required property"]
    """
    from jsonschema.exceptions import best_match
    from referencing import Registry

    kind = _allow_null(_find_kind(schema))
    errors = kind(schema, registry=Registry()).iter_errors(value)
    return [_describe(best_match([error])) for error in errors]


def _find_kind(schema: Any) -> Any:
    """The validator of the draft that a schema names, or else of the newest."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for

    return validator_for(schema, Draft202012Validator)


@cache
def _allow_null(kind: Any) -> Any:
    """The validator, but no keyword of a `nullable` schema applies to null."""
    from jsonschema.validators import extend

    def wrap(check: Callable[..., Any]) -> Callable[..., Any]:
        def check_others(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
            is_allowed = instance is None and schema.get("nullable") is True
            return () if is_allowed else check(validator, value, instance, schema)

        return check_others

    return extend(kind, {name: wrap(check) for name, check in kind.VALIDATORS.items()})


def _check_references(
    schema: Any, draft: Any, resolver: Any, where: str, applied: dict[int, set[int]]
) -> None:
    """Check what the schema, and each schema in it, refers to.

    `applied` gets, for the id of each schema, those of the schemas that apply to the same value.
    """
    from referencing.exceptions import Unresolvable

    if not isinstance(schema, Mapping) or id(schema) in applied:
        return
    applied[id(schema)] = set(map(id, _list_applied(schema)))
    for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
        if not isinstance(reference := schema.get(keyword), str):
            continue
        name = shorten(repr(reference), 80)
        try:
            found = resolver.lookup(reference)
        except Unresolvable:
            raise LabError(f"{where} refers to {name}, which it does not contain") from None
        if not isinstance(found.contents, Mapping | bool):
            raise LabError(f"{where} refers to {name}, which is not a schema")
        applied[id(schema)].add(id(found.contents))
        _check_references(found.contents, draft, found.resolver, where, applied)
    for each in draft.create_resource(schema).subresources():
        _check_references(each.contents, draft, resolver.in_subresource(each), where, applied)


def _list_applied(schema: Mapping[str, Any]) -> Iterator[Any]:
    """The schemas in a schema that apply to the same value."""
    for name in ("allOf", "anyOf", "oneOf"):
        yield from schema.get(name, ())
    for name in ("not", "if", "then", "else"):
        yield schema.get(name)
    for name in ("dependentSchemas", "dependencies"):
        yield from schema.get(name, {}).values()


def _describe(error: Any) -> str:
    where = error.json_path.removeprefix("$").removeprefix(".")
    return f"{where}: {_shorten_message(error)}" if where else _shorten_message(error)


def _shorten_message(error: Any) -> str:
    return shorten(error.message.replace(repr(error.instance), show(error.instance)), 200)


def show(value: object) -> str:
    """A value in a sentence, shortened."""
    return shorten(show_safely(value), 60)


def join_problems(problems: Sequence[str]) -> str:
    """The first problems as one sentence."""
    more = len(problems) - SHOWN
    return "; ".join(problems[:SHOWN]) + (f"; and {more} more" if more > 0 else "")

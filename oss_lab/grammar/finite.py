"""Whether a finite value fits a JSON schema that refers to itself.

A node that requires another node of the same kind has no end. Such a schema has texts that begin
well, but none that is complete. The check finds the references that have a finite value, starting
from none, until no more are found. A schema that the check does not understand passes.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

ROOT = "#"


def find_endless_reference(schema: Mapping[str, Any]) -> str | None:
    """A reference of the schema, "#" for all of it, that only an infinite value fits."""
    targets = {ROOT: schema}
    for reference in set(_find_references(schema)):
        target = _resolve(schema, reference)
        if target is not None:
            targets[reference] = target
    finite = set[str]()
    while True:
        # An unknown reference counts as finite: llguidance reports it.
        endless = targets.keys() - finite
        found = {name for name in endless if _is_finite(targets[name], endless)}
        if not found:
            break
        finite |= found
    if ROOT not in endless:
        return None
    return min(endless - {ROOT}, default=ROOT)


def _is_finite(schema: Any, endless: Collection[str]) -> bool:
    """Whether a value without these references fits the schema."""
    if not isinstance(schema, Mapping):
        return True
    if schema.get("$ref") in endless:
        return False
    if not all(_is_finite(each, endless) for each in _list(schema, "allOf")):
        return False
    for key in ("anyOf", "oneOf"):
        choices = _list(schema, key)
        if choices and not any(_is_finite(each, endless) for each in choices):
            return False
    if "const" in schema or "enum" in schema or "type" not in schema:
        return True
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return any(_has_finite(schema, kind, endless) for kind in kinds)


def _has_finite(schema: Mapping[str, Any], kind: Any, endless: Collection[str]) -> bool:
    """Whether a finite value of this type fits the schema."""
    if kind == "object":
        properties, others = schema.get("properties"), schema.get("additionalProperties")
        known = properties if isinstance(properties, Mapping) else {}
        needed = [known.get(name, others) for name in _list(schema, "required")]
    elif kind == "array":
        least = schema.get("minItems", 0)
        first = _list(schema, "prefixItems")
        rest = schema.get("items") if isinstance(least, int) and least > len(first) else None
        needed = [*first[:least], rest] if isinstance(least, int) else []
    else:
        return True
    return all(_is_finite(each, endless) for each in needed)


def _list(schema: Mapping[str, Any], key: str) -> list[Any]:
    value = schema.get(key)
    return list(value) if isinstance(value, list | tuple) else []


def _find_references(value: Any) -> Iterator[str]:
    for key, each in value.items() if isinstance(value, Mapping) else enumerate(value):
        if key == "$ref" and isinstance(each, str):
            yield each
        elif isinstance(each, Mapping | list | tuple):
            yield from _find_references(each)


def _resolve(schema: Any, reference: str) -> Any:
    """The part of the schema that a reference such as `#/$defs/node` names, or None."""
    if reference == ROOT:
        return schema
    if not reference.startswith("#/"):
        return None
    for name in unquote(reference[2:]).split("/"):
        name = name.replace("~1", "/").replace("~0", "~")
        try:
            schema = schema[int(name) if isinstance(schema, list) else name]
        except (LookupError, TypeError, ValueError):
            return None
    return schema

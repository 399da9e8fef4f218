"""JSON schema -> the TypeScript-like text in which Harmony describes a function's arguments.

Byte for byte what openai-harmony 0.0.8 writes, its oddities included: `anyOf`, `$ref`, `allOf` and
`const` become `any`, unions inside arrays get no parentheses, a multi-line description breaks out
of its comment. Source: the library's `src/encoding.rs`, `json_schema_to_typescript`.
"""

from __future__ import annotations

import json
import math
from typing import Any

from oss_lab.errors import HarmonyError


def typescript(schema: Any, indent: str = "") -> str:
    """The type of `schema`; the first rule that fits wins.

    >>> typescript({"type": "array", "items": {"type": "integer"}})
    'number[]'
    """
    if not isinstance(schema, dict):
        return "any"
    variants = schema.get("oneOf")
    if isinstance(variants, list):  # beats type and properties
        return "".join(
            f"\n{indent} | {_nullable(variant, typescript(variant, indent + '   '))}"
            f"{_trailer(variant, quote_enum_default=True)}"
            for variant in variants
        )
    kind = schema.get("type")
    if isinstance(kind, list):
        names = [name for name in kind if isinstance(name, str)]
        return " | ".join("number" if name == "integer" else name for name in names) or "any"
    if kind == "object":
        return _object(schema, indent)
    if kind == "string":
        return " | ".join(f'"{name}"' for name in _enum(schema) if isinstance(name, str)) or kind
    if kind in ("number", "integer"):
        return "number"
    if kind == "boolean":
        return "boolean"
    if kind == "array":
        return f"{typescript(schema['items'], indent)}[]" if "items" in schema else "Array<any>"
    return "any"


def _object(schema: dict[str, Any], indent: str) -> str:
    lines = []
    if isinstance(schema.get("description"), str):
        lines.append(f"{indent}// {schema['description']}\n")
    lines.append("{\n")
    properties = schema.get("properties")
    required = schema.get("required")
    if isinstance(properties, dict):
        for key, value in properties.items():
            optional = not (isinstance(required, list) and key in required)
            lines.append(_property(key + "?" * optional, value, indent))
    lines.append(f"{indent}}}")
    return "".join(lines)


def _property(key: str, schema: Any, indent: str) -> str:
    """One property with its comments; `key` already carries its `?`."""
    if not isinstance(schema, dict):
        return f"{indent}{key}: any,\n"
    lines = []
    if isinstance(schema.get("title"), str):
        lines += [f"// {schema['title']}", "//"]
    if isinstance(schema.get("description"), str) and "oneOf" not in schema:
        lines.append(f"// {schema['description']}")
    examples = schema.get("examples")
    if isinstance(examples, list) and examples:
        lines.append("// Examples:")
        lines += [f'// - "{example}"' for example in examples if isinstance(example, str)]
    if isinstance(schema.get("oneOf"), list):
        lines += _one_of_property(key, schema, indent)
    else:
        text = f"{key}: {_nullable(schema, typescript(schema, indent + '    '))},"
        if "default" in schema and "oneOf" not in schema:
            text += f" // default: {_default(schema)}"
        lines.append(text)
    return "".join(f"{indent}{line}\n" for line in lines)


def _one_of_property(key: str, schema: dict[str, Any], indent: str) -> list[str]:
    """The lines of a property whose value is one of several; the caller indents them."""
    variants = schema["oneOf"]
    description = schema.get("description")
    described = isinstance(description, str)
    shown_above = described and not (variants and _description(variants[0]) == description)
    lines = [f"// {description}"] if shown_above else []
    if "default" in schema:
        lines.append(f"// default: {_default(schema)}")
    lines.append(f"{key}:")
    for i, variant in enumerate(variants):
        silent = described and (_description(variant) == description or (i == 0 and shown_above))
        lines.append(
            f" | {_nullable(variant, typescript(variant, indent + '   '))}"
            f"{_trailer(variant, without_description=silent)}"
        )
    lines.append(",")
    return lines


def _enum(schema: dict[str, Any]) -> list[Any]:
    values = schema.get("enum")
    return values if isinstance(values, list) else []


def _description(schema: Any) -> str | None:
    text = schema.get("description") if isinstance(schema, dict) else None
    return text if isinstance(text, str) else None


def _nullable(schema: Any, text: str) -> str:
    wanted = isinstance(schema, dict) and schema.get("nullable") is True
    return f"{text} | null" if wanted and "null" not in text else text


def _trailer(
    schema: Any, *, quote_enum_default: bool = False, without_description: bool = False
) -> str:
    """The comment behind a variant: its description, its default, or both."""
    words = []
    description = _description(schema)
    if description is not None and not without_description:
        words.append(description)
    if isinstance(schema, dict) and "default" in schema:
        words.append(f"default: {_default(schema, quote_enum_default=quote_enum_default)}")
    return f" // {' '.join(words)}" if words else ""


def _default(schema: dict[str, Any], *, quote_enum_default: bool = False) -> str:
    value = schema["default"]
    if not isinstance(value, str):
        return compact_json(value)
    if not _enum(schema):
        return f'"{value}"'
    return compact_json(value) if quote_enum_default else value


def compact_json(value: Any) -> str:
    """JSON without spaces, numbers written as Rust's serde_json writes them."""
    if isinstance(value, dict):
        items = (f"{compact_json(str(k))}:{compact_json(v)}" for k, v in value.items())
        return "{" + ",".join(items) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(compact_json, value)) + "]"
    if isinstance(value, int) and not isinstance(value, bool):
        if not -(2**63) <= value < 2**64:  # no such integer there: it becomes a float
            return _float(_as_serde_reads(str(value)))
        return str(value)
    if isinstance(value, float):
        return _float(_as_serde_reads(repr(value)))
    return json.dumps(value, ensure_ascii=False)


def _as_serde_reads(number: str) -> float:
    """The double that serde_json makes of a JSON number: sometimes off by one in the last place.

    It multiplies the digits, as one double, by a power of ten instead of rounding once.
    """
    if not math.isfinite(float(number)):
        raise HarmonyError(f"a default value is {number}, which JSON cannot hold")
    mantissa, _, exponent = number.lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits, power = whole + fraction, int(exponent or 0) - len(fraction)
    while int(digits) >= 2**64:  # digits beyond 64 bits are dropped
        digits, power = digits[:-1], power + 1
    value = float(int(digits))
    while power < -308:
        value, power = value / 1e308, power + 308
    value = value * float(f"1e{power}") if power >= 0 else value / float(f"1e{-power}")
    return -value if number.startswith("-") else value


def _float(x: float) -> str:
    """Shortest digits; positional for 1e-5 <= |x| < 1e16, else `1e-7`, `1.5e16`.

    >>> _float(1e-7), _float(0.00001), _float(1e15), _float(1e16), _float(-0.0)
    ('1e-7', '0.00001', '1000000000000000.0', '1e16', '-0.0')
    """
    mantissa, _, exponent = repr(x).partition("e")
    if not exponent:
        return mantissa
    if exponent == "-05":  # Python writes an exponent one decade earlier than Rust
        digits = mantissa.lstrip("-").replace(".", "")
        return f"{'-' if x < 0 else ''}0.0000{digits}"
    return f"{mantissa}e{int(exponent)}"

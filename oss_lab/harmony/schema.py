"""JSON schema -> the TypeScript-like text in which Harmony describes a function's arguments.

Byte for byte what openai-harmony 0.0.8 writes, including its quirks: `anyOf`, `$ref`, `allOf` and
`const` become `any`, unions inside arrays get no parentheses, and a multi-line description is not
commented out after its first line. Source: json_schema_to_typescript in the library's
src/encoding.rs.
"""

from __future__ import annotations

import json
import math
from typing import Any

from oss_lab.errors import HarmonyError


def to_typescript(schema: Any, indent: str = "") -> str:
    """The type of `schema`. The first rule that applies wins.

    >>> to_typescript({"type": "array", "items": {"type": "integer"}})
    'number[]'
    """
    if not isinstance(schema, dict):
        return "any"
    variants = schema.get("oneOf")
    if isinstance(variants, list):  # takes precedence over type and properties
        return "".join(
            f"\n{indent} | {_add_null(variant, to_typescript(variant, indent + '   '))}"
            f"{_format_comment(variant, quote_enum_default=True)}"
            for variant in variants
        )
    kind = schema.get("type")
    if isinstance(kind, list):
        names = [name for name in kind if isinstance(name, str)]
        return " | ".join("number" if name == "integer" else name for name in names) or "any"
    if kind == "object":
        return _format_object(schema, indent)
    if kind == "string":
        return (
            " | ".join(f'"{name}"' for name in _enum_values(schema) if isinstance(name, str))
            or kind
        )
    if kind in ("number", "integer"):
        return "number"
    if kind == "boolean":
        return "boolean"
    if kind == "array":
        return f"{to_typescript(schema['items'], indent)}[]" if "items" in schema else "Array<any>"
    return "any"


def _format_object(schema: dict[str, Any], indent: str) -> str:
    lines = []
    if isinstance(schema.get("description"), str):
        lines.append(f"{indent}// {schema['description']}\n")
    lines.append("{\n")
    properties = schema.get("properties")
    required = schema.get("required")
    if isinstance(properties, dict):
        for key, value in properties.items():
            optional = not (isinstance(required, list) and key in required)
            lines.append(_format_property(key + "?" * optional, value, indent))
    lines.append(f"{indent}}}")
    return "".join(lines)


def _format_property(key: str, schema: Any, indent: str) -> str:
    """One property with its comments; `key` already includes its `?`."""
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
        lines += _format_one_of(key, schema, indent)
    else:
        text = f"{key}: {_add_null(schema, to_typescript(schema, indent + '    '))},"
        if "default" in schema and "oneOf" not in schema:
            text += f" // default: {_format_default(schema)}"
        lines.append(text)
    return "".join(f"{indent}{line}\n" for line in lines)


def _format_one_of(key: str, schema: dict[str, Any], indent: str) -> list[str]:
    """The lines of a property with `oneOf`; the caller indents them."""
    variants = schema["oneOf"]
    description = schema.get("description")
    described = isinstance(description, str)
    shown_above = described and not (variants and _description(variants[0]) == description)
    lines = [f"// {description}"] if shown_above else []
    if "default" in schema:
        lines.append(f"// default: {_format_default(schema)}")
    lines.append(f"{key}:")
    for i, variant in enumerate(variants):
        silent = described and (_description(variant) == description or (i == 0 and shown_above))
        lines.append(
            f" | {_add_null(variant, to_typescript(variant, indent + '   '))}"
            f"{_format_comment(variant, without_description=silent)}"
        )
    lines.append(",")
    return lines


def _enum_values(schema: dict[str, Any]) -> list[Any]:
    values = schema.get("enum")
    return values if isinstance(values, list) else []


def _description(schema: Any) -> str | None:
    text = schema.get("description") if isinstance(schema, dict) else None
    return text if isinstance(text, str) else None


def _add_null(schema: Any, text: str) -> str:
    wanted = isinstance(schema, dict) and schema.get("nullable") is True
    return f"{text} | null" if wanted and "null" not in text else text


def _format_comment(
    schema: Any, *, quote_enum_default: bool = False, without_description: bool = False
) -> str:
    """The comment after a variant: its description, its default, or both."""
    words = []
    description = _description(schema)
    if description is not None and not without_description:
        words.append(description)
    if isinstance(schema, dict) and "default" in schema:
        words.append(f"default: {_format_default(schema, quote_enum_default=quote_enum_default)}")
    return f" // {' '.join(words)}" if words else ""


def _format_default(schema: dict[str, Any], *, quote_enum_default: bool = False) -> str:
    value = schema["default"]
    if not isinstance(value, str):
        return compact_json(value)
    if not _enum_values(schema):
        return f'"{value}"'
    return compact_json(value) if quote_enum_default else value


def compact_json(value: Any) -> str:
    """JSON without spaces, with numbers as Rust's serde_json writes them."""
    if isinstance(value, dict):
        items = (f"{compact_json(str(k))}:{compact_json(v)}" for k, v in value.items())
        return "{" + ",".join(items) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(compact_json, value)) + "]"
    if isinstance(value, int) and not isinstance(value, bool):
        if not -(2**63) <= value < 2**64:  # does not fit in 64 bits: serde_json makes it a float
            return _format_float(_read_as_serde(str(value)))
        return str(value)
    if isinstance(value, float):
        return _format_float(_read_as_serde(repr(value)))
    return json.dumps(value, ensure_ascii=False)


def _read_as_serde(number: str) -> float:
    """The double that serde_json reads from a JSON number: sometimes off by one in the last place.

    It multiplies the digits, as one double, by a power of ten instead of rounding once.
    """
    if not math.isfinite(float(number)):
        raise HarmonyError(f"a default value is {number}, which JSON cannot represent")
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


def _format_float(x: float) -> str:
    """Shortest digits; positional for 1e-5 <= |x| < 1e16, else `1e-7`, `1.5e16`.

    >>> [_format_float(x) for x in (1e-7, 0.00001, 1e15, 1e16, -0.0)]
    ['1e-7', '0.00001', '1000000000000000.0', '1e16', '-0.0']
    """
    mantissa, _, exponent = repr(x).partition("e")
    if not exponent:
        return mantissa
    if exponent == "-05":  # Python starts to use exponents one power of ten before Rust
        digits = mantissa.lstrip("-").replace(".", "")
        return f"{'-' if x < 0 else ''}0.0000{digits}"
    return f"{mantissa}e{int(exponent)}"

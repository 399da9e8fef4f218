"""Convert tools (OpenAI's dictionaries or Python functions) to `ToolDescription`.

The type hints of a function become a JSON schema. Supported are str, int, float, bool, list, dict,
Literal, and each of them or None. "Or None" is written as `nullable`, because Harmony's text cannot
show `anyOf`. The function is inspected, never called. Left out: enums, dataclasses, unions of
several types, `*args` and `**kwargs`. Use a dictionary for what a JSON schema can describe.
"""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from oss_lab.errors import LabError
from oss_lab.harmony.messages import ROLES, ToolDescription
from oss_lab.harmony.notices import warn

ToolForm = ToolDescription | Mapping[str, Any] | Callable[..., Any]

_KINDS: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}
_SUPPORTED = "use str, int, float, bool, list, dict, Literal, or one of them | None"
_ITEM = re.compile(r"(\w+(?:, *\w+)*)(?: *\(.*?\))?: *(.*)")
UNNAMED = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.VAR_KEYWORD,
)


def describe_tools(tools: Sequence[ToolForm]) -> tuple[ToolDescription, ...]:
    """Describe each tool, in order.

    A `ToolDescription` is returned unchanged. A dictionary has the form of OpenAI's chat
    completions (fields under `function`) or of its Responses API (fields at the top level). Its
    `strict` has no effect, which a `HarmonyWarning` reports. A Python function is described by
    its name, type hints and defaults, and by the first paragraph and the `Args:` of its docstring.

    >>> def add(a: int, b: int = 1) -> int:
    ...     "Add two numbers."
    ...     return a + b
    >>> describe_tools([add])[0].parameters["required"]
    ['a']

    Raises:
        LabError: a tool cannot be described; the error names the tool and the parameter.
    """
    if not isinstance(tools, Sequence) or isinstance(tools, str | bytes):
        raise LabError(f"expected a list of tools, got {_type(tools)}; write `tools=[...]`")
    described: dict[str, ToolDescription] = {}
    for i, tool in enumerate(tools):
        description = _describe(tool, f"tools[{i}]")
        if description.name in described:
            raise LabError(
                f"tools[{i}] has the name {description.name!r}, as an earlier tool does; rename"
                " one of them"
            )
        described[description.name] = description
    return tuple(described.values())


def _describe(tool: Any, where: str) -> ToolDescription:
    if isinstance(tool, ToolDescription):
        _check_name(tool.name, where)
        return tool
    if isinstance(tool, Mapping):
        return _from_mapping(tool, where)
    if callable(tool):
        return _from_function(tool, where)
    raise LabError(
        f"{where} must be a ToolDescription, a dictionary or a Python function, not {_type(tool)}"
    )


def _check_name(name: Any, where: str) -> str:
    """Refuse a name that a message header cannot hold, or that is also a role."""
    if not isinstance(name, str):
        raise LabError(f"{where}: the name must be a string, not {_type(name)}")
    if name.split() != [name]:
        raise LabError(f"{where} has the name {name!r}; use a name without whitespace")
    if name in ROLES:
        raise LabError(f"{where} has the name {name!r}, the name of a role; rename the tool")
    return name


def _check_identifier(name: Any, where: str) -> str:
    if not _check_name(name, where).isidentifier():
        raise LabError(
            f"{where} has the name {name!r}; use letters, digits and underscores, and do not start"
            " with a digit"
        )
    return name


def _from_mapping(tool: Mapping[str, Any], where: str) -> ToolDescription:
    kind = tool.get("type", "function")
    if not isinstance(kind, str) or kind != "function":
        raise LabError(f"{where}.type is {kind!r}; only 'function' can be described")
    fields = tool
    if "function" in tool:
        _check_keys(tool, ("type", "function"), where)
        fields, where = tool["function"], f"{where}.function"
        if not isinstance(fields, Mapping):
            raise LabError(f"{where} must be a dictionary, not {_type(fields)}")
        _check_keys(fields, ("name", "description", "parameters", "strict"), where)
    else:
        _check_keys(tool, ("type", "name", "description", "parameters", "strict"), where)
    if "name" not in fields:
        raise LabError(f"{where} is missing the field `name`; add it")
    name = _check_identifier(fields["name"], where)
    if fields.get("strict"):
        warn([f"{where}.strict of tool {name} has no effect: nothing constrains the arguments"])
    description, parameters = fields.get("description"), fields.get("parameters")
    if not isinstance(description, str | None):
        raise LabError(f"{where}.description of tool {name} must be a string")
    if not isinstance(parameters, dict | None):
        raise LabError(
            f"{where}.parameters of tool {name} must be a dictionary, not {_type(parameters)}"
        )
    try:
        parameters = json.loads(json.dumps(parameters, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise LabError(
            f"{where}.parameters of tool {name} must be a JSON schema, but is not valid JSON"
            f" ({_one_line(str(error))}); correct it"
        ) from None
    return ToolDescription(name, description or "", parameters)


def _check_keys(data: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key, value in data.items():
        if key not in known and value is not None:
            raise LabError(f"{where} has the unknown key {key!r}; use only {', '.join(known)}")


def _from_function(function: Callable[..., Any], where: str) -> ToolDescription:
    name = getattr(function, "__name__", None)
    if name == "<lambda>":
        raise LabError(f"{where} is a lambda, which has no name; write a function with `def`")
    if isinstance(function, type) or get_origin(function) or not isinstance(name, str):
        raise LabError(
            f"{where} is {_one_line(repr(function))}, not a function; write a function with `def`"
        )
    name = _check_identifier(name, where)
    try:
        signature = inspect.signature(function)
    except Exception as error:  # an object may raise anything while it is inspected
        raise LabError(
            f"the parameters of tool {name} cannot be read ({_one_line(str(error))}); write a"
            " function with `def` and type hints"
        ) from None
    paragraph, texts = read_docstring(inspect.getdoc(function) or "")
    names = getattr(inspect.unwrap(function), "__globals__", {})
    properties = {
        key: _build_property(name, parameter, names, texts.get(key))
        for key, parameter in signature.parameters.items()
    }
    if not properties:
        return ToolDescription(name, paragraph)
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    required = [
        key
        for key, parameter in signature.parameters.items()
        if parameter.default is inspect.Parameter.empty
    ]
    if required:
        schema["required"] = required
    return ToolDescription(name, paragraph, schema)


def check_named(parameter: inspect.Parameter, where: str) -> None:
    """Raise LabError if an argument cannot be passed to this parameter by name."""
    if parameter.kind in UNNAMED:
        raise LabError(
            f"{where} is {parameter.kind.description}, but tool calls pass arguments by name; use"
            " ordinary parameters"
        )


def _build_property(
    tool: str, parameter: inspect.Parameter, names: dict[str, Any], text: str | None
) -> dict[str, Any]:
    """The schema of one parameter. `names` are the globals that its hint may use."""
    where = f"parameter {parameter.name} of tool {tool}"
    check_named(parameter, where)
    if parameter.annotation is inspect.Parameter.empty:
        raise LabError(f"{where} has no type hint; {_SUPPORTED}")
    alone = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        hint = get_type_hints(alone, names, include_extras=True)[parameter.name]
    except Exception as error:  # a hint may be any expression
        raise LabError(
            f"the type hint of {where} cannot be read ({_one_line(str(error))}); {_SUPPORTED}"
        ) from None
    schema = _build_schema(hint, where)
    if text:
        schema["description"] = text
    try:
        default = json.loads(json.dumps(parameter.default, allow_nan=False))
        if default == parameter.default:  # false for a tuple, which becomes a list
            schema["default"] = default
    except (TypeError, ValueError, RecursionError):
        pass  # the default is not JSON, or there is none
    return schema


def _build_schema(hint: Any, where: str) -> dict[str, Any]:
    """The JSON schema of a type hint."""
    origin, arguments = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, types.UnionType):
        others = [each for each in arguments if each is not type(None)]
        if len(others) == 1:
            return {**_build_schema(others[0], where), "nullable": True}
    elif origin is Literal:
        return _build_literal_schema(arguments, where)
    elif origin is list:
        known = arguments and arguments[0] is not Any
        return {"type": "array", **({"items": _build_schema(arguments[0], where)} if known else {})}
    elif origin is dict and (not arguments or arguments[0] is str):
        schema: dict[str, Any] = {"type": "object"}
        if arguments and arguments[1] is not Any:
            schema["additionalProperties"] = _build_schema(arguments[1], where)
        return schema
    elif not arguments and isinstance(hint, type) and hint in _KINDS:
        return {"type": _KINDS[hint]}
    raise LabError(f"{where} has the type hint {_format_hint(hint)}; {_SUPPORTED}")


def _build_literal_schema(values: tuple[Any, ...], where: str) -> dict[str, Any]:
    present = [value for value in values if value is not None]
    kinds = {_KINDS.get(type(value)) for value in present}
    if len(kinds) != 1 or None in kinds:
        raise LabError(
            f"{where} has the type hint {_format_hint(Literal[values])}; use values that are all"
            " strings, all integers or all booleans"
        )
    schema: dict[str, Any] = {"type": kinds.pop(), "enum": present}
    return {**schema, "nullable": True} if None in values else schema


def read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """The first paragraph as one line, and the text of each parameter under `Args:`."""
    lines = text.split("\n")
    opening = next((i for i, line in enumerate(lines) if line in ("Args:", "Arguments:")), None)
    paragraph = "\n".join(lines[:opening]).split("\n\n")[0]
    texts: dict[str, str] = {}
    if opening is None:
        return _one_line(paragraph), texts
    indent, keys = 0, []
    for line in lines[opening + 1 :]:
        depth = len(line) - len(line.lstrip())
        if line and not depth:
            break  # the next section
        indent = indent or depth
        item = _ITEM.fullmatch(line.strip()) if depth <= indent else None
        if item:
            keys = re.split(", *", item[1])
            texts |= dict.fromkeys(keys, "")
        for key in keys:
            texts[key] = _one_line(f"{texts[key]} {item[2] if item else line}")
    return _one_line(paragraph), texts


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _format_hint(hint: Any) -> str:
    return hint.__name__ if type(hint) is type else _one_line(repr(hint)).replace("typing.", "")


def _type(value: Any) -> str:
    return "None" if value is None else type(value).__name__

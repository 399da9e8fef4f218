"""Read single fields of OpenAI's chat messages; each error names the message and the field."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, cast

from oss_lab.errors import HarmonyError
from oss_lab.harmony.messages import ROLES, Role

NAMESPACE = "functions."
_ADVICE = {
    "function_call": "write it as `tool_calls`",
    "refusal": "move its text to `content`",
    "thinking": "name it `reasoning_content`",
    "reasoning_details": "give their text as `reasoning_content`",
    "audio": "give its transcript as `content`",
}


def read_role(message: Mapping[str, Any], where: str) -> Role:
    if "role" not in message and isinstance(message.get("type"), str):
        raise HarmonyError(
            f"{where} is an item of the Responses API (type {message['type']!r}), which cannot be"
            " converted; write it as a message with a `role`"
        )
    role = get_required(message, "role", where)
    if not isinstance(role, str) or role not in ROLES:
        old = "; write an old function's output with the role 'tool'" if role == "function" else ""
        raise HarmonyError(f"{where}.role is {role!r}; use one of {', '.join(ROLES)}{old}")
    return cast(Role, role)


def read_reasoning(message: Mapping[str, Any], where: str) -> str:
    """The reasoning, or "". Servers send it under one of two names, or under both."""
    found = {
        key: check_string(message[key], f"{where}.{key}")
        for key in ("reasoning_content", "reasoning")
        if message.get(key) is not None
    }
    texts = {text for text in found.values() if text}
    if len(texts) > 1:
        raise HarmonyError(
            f"{where} has different texts in `reasoning_content` and `reasoning`; keep one of them"
        )
    return texts.pop() if texts else ""


def read_content(message: Mapping[str, Any], where: str) -> str:
    content = get_required(message, "content", where)
    where = f"{where}.content"
    if isinstance(content, str):
        return check_string(content, where)
    if content is None:
        raise HarmonyError(f"{where} is null; give a string or a list of text parts")
    if not isinstance(content, list | tuple):
        raise HarmonyError(
            f"{where} must be a string or a list of text parts, not {type_name(content)}"
        )
    if not content:
        raise HarmonyError(f"{where} is an empty list; give a string or a list of text parts")
    return "".join(_read_part(part, f"{where}[{i}]") for i, part in enumerate(content))


def _read_part(part: Any, where: str) -> str:
    check_mapping(part, where)
    kind = get_required(part, "type", where)
    if not isinstance(kind, str) or kind != "text":
        raise HarmonyError(f"{where}.type is {kind!r}; only parts of type 'text' can be converted")
    check_keys(part, {"type", "text", "annotations"}, where, "a text part")
    return check_string(get_required(part, "text", where), f"{where}.text")


def read_function_name(name: Any, where: str) -> str:
    """The name with its namespace. Refuses a name that a message header cannot hold."""
    bare = check_string(name, where).removeprefix(NAMESPACE)
    if bare.split() != [bare]:
        raise HarmonyError(f"{where} is {name!r}; use a name without whitespace")
    if bare in ROLES:
        raise HarmonyError(f"{where} is {name!r}, the name of a role; rename the function")
    return NAMESPACE + bare


def check_keys(data: Mapping[str, Any], known: AbstractSet[str], where: str, what: str) -> None:
    """Refuse keys that have a value and are not converted."""
    for key, value in data.items():
        if key not in known and not is_empty(value):
            advice = _ADVICE.get(key, "remove it")
            raise HarmonyError(
                f"{where} has the key {key!r}, which cannot be converted in {what}; {advice}"
            )


def is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | tuple | Mapping) and not value)


def check_mapping(value: Any, where: str) -> None:
    if not isinstance(value, Mapping):
        raise HarmonyError(f"{where} must be a dictionary, not {type_name(value)}")


def get_required(data: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in data:
        raise HarmonyError(f"{where} is missing the field `{key}`; add it")
    return data[key]


def check_string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise HarmonyError(f"{where} must be a string, not {type_name(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise HarmonyError(
            f"{where} has a lone surrogate at character {error.start}, which UTF-8 cannot encode;"
            " remove it"
        ) from None
    return value


def type_name(value: Any) -> str:
    return "null" if value is None else type(value).__name__

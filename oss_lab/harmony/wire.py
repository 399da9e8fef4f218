"""Conversations as JSON values, in the wire format of openai-harmony 0.0.8.

A missing key means the same as null: the field is absent. (The defaults of `SystemContent` belong
to the Python classes, not to the format.) Unknown keys are left out, as in the library, and named
in a `HarmonyWarning`. A missing required key or a value of the wrong type raises an error that
names it. One key is not in the library's format: `response_formats` in developer content.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from oss_lab.errors import HarmonyError
from oss_lab.harmony.messages import (
    Author,
    ChannelConfig,
    Content,
    Conversation,
    DeveloperContent,
    Effort,
    Message,
    ResponseFormat,
    Role,
    SystemContent,
    TextContent,
    ToolDescription,
    ToolNamespace,
)
from oss_lab.harmony.notices import warn
from oss_lab.harmony.wire_keys import find_unknown_keys

_NAMES = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}


def _check_type(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind):
        raise HarmonyError(f"{where} must be {_NAMES[kind]}, not {type(value).__name__}")
    return value


def _get_required(data: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    if key not in data:
        raise HarmonyError(f"{where} is missing the field `{key}`")
    return _check_type(data[key], kind, f"{where}.{key}")


def _get_optional(data: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    value = data.get(key)
    return None if value is None else _check_type(value, kind, f"{where}.{key}")


def conversation_from_dict(data: Any) -> Conversation:
    """Read `{"messages": [...]}`. Warns about each key that the format does not have.

    Raises:
        HarmonyError: a field is missing or has the wrong type; the error names it.
    """
    messages = _get_required(
        _check_type(data, dict, "conversation"), "messages", list, "conversation"
    )
    read = tuple(message_from_dict(item, f"messages[{i}]") for i, item in enumerate(messages))
    warn(find_unknown_keys(data))
    return Conversation(read)


def message_from_dict(data: Any, where: str = "message") -> Message:
    """Read one message; `content` is a string or a list of content objects."""
    _check_type(data, dict, where)
    role = _get_required(data, "role", str, where)
    if "content" not in data:
        raise HarmonyError(f"{where} is missing the field `content`")
    content = data["content"]
    if content is None:
        raise HarmonyError(
            f"{where}.content is null; give text or a list of contents (OpenAI's chat messages are"
            " converted by `convert_messages`)"
        )
    if isinstance(content, str):
        parts: tuple[Content, ...] = (TextContent(content),)
    else:
        items = _check_type(content, list, f"{where}.content")
        parts = tuple(_read_content(item, f"{where}.content[{i}]") for i, item in enumerate(items))
    return Message(
        Author(cast(Role, role), _get_optional(data, "name", str, where)),
        parts,
        channel=_get_optional(data, "channel", str, where),
        recipient=_get_optional(data, "recipient", str, where),
        content_type=_get_optional(data, "content_type", str, where),
    )


def _read_content(data: Any, where: str) -> Content:
    kind = _get_required(_check_type(data, dict, where), "type", str, where)
    if kind == "text":
        return TextContent(_get_required(data, "text", str, where))
    if kind == "system_content":
        effort = _get_optional(data, "reasoning_effort", str, where)
        return SystemContent(
            model_identity=_get_optional(data, "model_identity", str, where),
            reasoning_effort=cast(Effort | None, effort and effort.lower()),
            conversation_start_date=_get_optional(data, "conversation_start_date", str, where),
            knowledge_cutoff=_get_optional(data, "knowledge_cutoff", str, where),
            channel_config=_read_channels(
                _get_optional(data, "channel_config", dict, where), where
            ),
            tools=_read_namespaces(_get_optional(data, "tools", dict, where), where),
        )
    if kind == "developer_content":
        formats = _get_optional(data, "response_formats", list, where) or []
        return DeveloperContent(
            instructions=_get_optional(data, "instructions", str, where),
            tools=_read_namespaces(_get_optional(data, "tools", dict, where), where),
            response_formats=tuple(
                _read_response_format(item, f"{where}.response_formats[{i}]")
                for i, item in enumerate(formats)
            ),
        )
    raise HarmonyError(
        f"{where}.type is {kind!r}; use one of text, system_content, developer_content"
    )


def _read_channels(data: Any, where: str) -> ChannelConfig | None:
    if data is None:
        return None
    where = f"{where}.channel_config"
    names = _get_required(data, "valid_channels", list, where)
    return ChannelConfig(
        tuple(_check_type(name, str, f"{where}.valid_channels") for name in names),
        _get_required(data, "channel_required", bool, where),
    )


def _read_namespaces(data: Any, where: str) -> dict[str, ToolNamespace] | None:
    if data is None:
        return None
    return {key: _read_namespace(value, f"{where}.tools.{key}") for key, value in data.items()}


def _read_namespace(data: Any, where: str) -> ToolNamespace:
    name = _get_required(_check_type(data, dict, where), "name", str, where)
    tools = _get_required(data, "tools", list, where)
    return ToolNamespace(
        name,
        _get_optional(data, "description", str, where),
        tuple(_read_tool(item, f"{where}.tools[{i}]") for i, item in enumerate(tools)),
    )


def _read_tool(data: Any, where: str) -> ToolDescription:
    name = _get_required(_check_type(data, dict, where), "name", str, where)
    return ToolDescription(
        name, _get_required(data, "description", str, where), data.get("parameters")
    )


def _read_response_format(data: Any, where: str) -> ResponseFormat:
    name = _get_required(_check_type(data, dict, where), "name", str, where)
    if "schema" not in data:
        raise HarmonyError(f"{where} is missing the field `schema`")
    return ResponseFormat(name, data["schema"], _get_optional(data, "description", str, where))


def conversation_to_dict(conversation: Conversation) -> dict[str, Any]:
    """The inverse of `conversation_from_dict`. Omits fields that are None."""
    return {"messages": [message_to_dict(message) for message in conversation]}


def message_to_dict(message: Message) -> dict[str, Any]:
    """One message of `conversation_to_dict`. Omits fields that are None."""
    return _drop_none(
        role=message.role,
        name=message.author.name,
        content=[_content_to_dict(part) for part in message.content],
        channel=message.channel,
        recipient=message.recipient,
        content_type=message.content_type,
    )


def plain_message(message: Message) -> dict[str, Any]:
    """A parsed message as `{role, name?, recipient?, channel?, content_type?, content}`."""
    return {**message_to_dict(message), "content": message.text}


def _drop_none(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


def _content_to_dict(part: Content) -> dict[str, Any]:
    if isinstance(part, TextContent):
        return {"type": "text", "text": part.text}
    tools = part.tools and {
        key: _drop_none(
            name=space.name,
            description=space.description,
            tools=[
                _drop_none(name=t.name, description=t.description, parameters=t.parameters)
                for t in space.tools
            ],
        )
        for key, space in part.tools.items()
    }
    if isinstance(part, SystemContent):
        channels = part.channel_config
        return _drop_none(
            type="system_content",
            model_identity=part.model_identity,
            reasoning_effort=part.reasoning_effort and part.reasoning_effort.capitalize(),
            conversation_start_date=part.conversation_start_date,
            knowledge_cutoff=part.knowledge_cutoff,
            channel_config=channels
            and {
                "valid_channels": list(channels.valid_channels),
                "channel_required": channels.channel_required,
            },
            tools=tools,
        )
    formats = [
        _drop_none(name=f.name, description=f.description) | {"schema": f.schema}
        for f in part.response_formats
    ]
    return _drop_none(
        type="developer_content",
        instructions=part.instructions,
        tools=tools,
        response_formats=formats or None,
    )

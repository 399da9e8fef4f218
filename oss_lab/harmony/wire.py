"""Conversations as JSON values, in the wire format of openai-harmony 0.0.8.

A key that is missing means the same as null: the field is not there. (The defaults of
`SystemContent` belong to the Python classes, not to the format.) Unknown keys are ignored, as the
library does; a missing required key or a value of the wrong type is refused and named. One key is
ours: `response_formats` in developer content.
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

_NAMES = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}


def _typed(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind):
        raise HarmonyError(f"{where} must be {_NAMES[kind]}, not {type(value).__name__}")
    return value


def _required(data: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    if key not in data:
        raise HarmonyError(f"{where} is missing the field `{key}`")
    return _typed(data[key], kind, f"{where}.{key}")


def _optional(data: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    value = data.get(key)
    return None if value is None else _typed(value, kind, f"{where}.{key}")


def conversation_from_dict(data: Any) -> Conversation:
    """Read `{"messages": [...]}`.

    Raises:
        HarmonyError: one sentence that names the field that is missing or of the wrong type.
    """
    messages = _required(_typed(data, dict, "conversation"), "messages", list, "conversation")
    return Conversation(
        tuple(message_from_dict(item, f"messages[{i}]") for i, item in enumerate(messages))
    )


def message_from_dict(data: Any, where: str = "message") -> Message:
    """Read one message; `content` is a string or a list of content objects."""
    _typed(data, dict, where)
    role = _required(data, "role", str, where)
    if "content" not in data:
        raise HarmonyError(f"{where} is missing the field `content`")
    content = data["content"]
    if isinstance(content, str):
        parts: tuple[Content, ...] = (TextContent(content),)
    else:
        items = _typed(content, list, f"{where}.content")
        parts = tuple(_content(item, f"{where}.content[{i}]") for i, item in enumerate(items))
    return Message(
        Author(cast(Role, role), _optional(data, "name", str, where)),
        parts,
        channel=_optional(data, "channel", str, where),
        recipient=_optional(data, "recipient", str, where),
        content_type=_optional(data, "content_type", str, where),
    )


def _content(data: Any, where: str) -> Content:
    kind = _required(_typed(data, dict, where), "type", str, where)
    if kind == "text":
        return TextContent(_required(data, "text", str, where))
    if kind == "system_content":
        effort = _optional(data, "reasoning_effort", str, where)
        return SystemContent(
            model_identity=_optional(data, "model_identity", str, where),
            reasoning_effort=cast(Effort | None, effort and effort.lower()),
            conversation_start_date=_optional(data, "conversation_start_date", str, where),
            knowledge_cutoff=_optional(data, "knowledge_cutoff", str, where),
            channel_config=_channels(_optional(data, "channel_config", dict, where), where),
            tools=_namespaces(_optional(data, "tools", dict, where), where),
        )
    if kind == "developer_content":
        formats = _optional(data, "response_formats", list, where) or []
        return DeveloperContent(
            instructions=_optional(data, "instructions", str, where),
            tools=_namespaces(_optional(data, "tools", dict, where), where),
            response_formats=tuple(
                _response_format(item, f"{where}.response_formats[{i}]")
                for i, item in enumerate(formats)
            ),
        )
    raise HarmonyError(
        f"{where}.type is {kind!r}; use one of text, system_content, developer_content"
    )


def _channels(data: Any, where: str) -> ChannelConfig | None:
    if data is None:
        return None
    where = f"{where}.channel_config"
    names = _required(data, "valid_channels", list, where)
    return ChannelConfig(
        tuple(_typed(name, str, f"{where}.valid_channels") for name in names),
        _required(data, "channel_required", bool, where),
    )


def _namespaces(data: Any, where: str) -> dict[str, ToolNamespace] | None:
    if data is None:
        return None
    return {key: _namespace(value, f"{where}.tools.{key}") for key, value in data.items()}


def _namespace(data: Any, where: str) -> ToolNamespace:
    name = _required(_typed(data, dict, where), "name", str, where)
    tools = _required(data, "tools", list, where)
    return ToolNamespace(
        name,
        _optional(data, "description", str, where),
        tuple(_tool(item, f"{where}.tools[{i}]") for i, item in enumerate(tools)),
    )


def _tool(data: Any, where: str) -> ToolDescription:
    name = _required(_typed(data, dict, where), "name", str, where)
    return ToolDescription(name, _required(data, "description", str, where), data.get("parameters"))


def _response_format(data: Any, where: str) -> ResponseFormat:
    name = _required(_typed(data, dict, where), "name", str, where)
    if "schema" not in data:
        raise HarmonyError(f"{where} is missing the field `schema`")
    return ResponseFormat(name, data["schema"], _optional(data, "description", str, where))


def conversation_to_dict(conversation: Conversation) -> dict[str, Any]:
    """The inverse of `conversation_from_dict`; fields that are None are left out."""
    return {"messages": [message_to_dict(message) for message in conversation]}


def message_to_dict(message: Message) -> dict[str, Any]:
    return _present(
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


def _present(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


def _content_to_dict(part: Content) -> dict[str, Any]:
    if isinstance(part, TextContent):
        return {"type": "text", "text": part.text}
    tools = part.tools and {
        key: _present(
            name=space.name,
            description=space.description,
            tools=[
                _present(name=t.name, description=t.description, parameters=t.parameters)
                for t in space.tools
            ],
        )
        for key, space in part.tools.items()
    }
    if isinstance(part, SystemContent):
        channels = part.channel_config
        return _present(
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
        _present(name=f.name, description=f.description) | {"schema": f.schema}
        for f in part.response_formats
    ]
    return _present(
        type="developer_content",
        instructions=part.instructions,
        tools=tools,
        response_formats=formats or None,
    )

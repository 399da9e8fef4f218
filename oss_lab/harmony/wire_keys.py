"""Find the keys of a wire conversation that its format does not have.

openai-harmony ignores them, and so does wire.py. Here each one is named, because a history in
OpenAI's chat format would otherwise lose its calls and reasoning without notice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_KEYS: Mapping[str, frozenset[str]] = {
    "message": frozenset({"role", "name", "content", "channel", "recipient", "content_type"}),
    "text": frozenset({"type", "text"}),
    "system_content": frozenset(
        {
            "type",
            "model_identity",
            "reasoning_effort",
            "conversation_start_date",
            "knowledge_cutoff",
            "channel_config",
            "tools",
        }
    ),
    "developer_content": frozenset({"type", "instructions", "tools", "response_formats"}),
    "channel_config": frozenset({"valid_channels", "channel_required"}),
    "namespace": frozenset({"name", "description", "tools"}),
    "tool": frozenset({"name", "description", "parameters"}),
    "response_format": frozenset({"name", "schema", "description"}),
}
_ADVICE = {
    "tool_calls": "write each call as a message with a `recipient`",
    "function_call": "write it as a message with a `recipient`",
    "tool_call_id": "Harmony matches outputs to calls by the tool's name and order",
    "reasoning_content": "write it as a message on the channel 'analysis'",
    "reasoning": "write it as a message on the channel 'analysis'",
    "thinking": "write it as a message on the channel 'analysis'",
    "refusal": "write it as a message on the channel 'final'",
}


def find_unknown_keys(conversation: Mapping[str, Any]) -> list[str]:
    """One sentence for each key that is left out, for a value that wire.py has accepted."""
    places: dict[str, list[str]] = {}
    for where, key in _walk_conversation(conversation):
        places.setdefault(key, []).append(where)
    return [
        f"{found[0]} has the key {key!r}, which is left out"
        f"{f' ({len(found)} times)' if len(found) > 1 else ''};"
        f" {_ADVICE.get(key, 'correct or remove it')}"
        for key, found in places.items()
    ]


def _walk_conversation(conversation: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from (("conversation", key) for key in conversation if key != "messages")
    for i, message in enumerate(conversation["messages"]):
        where = f"messages[{i}]"
        yield from _list_unknown(message, "message", where)
        if isinstance(message["content"], list):
            for j, part in enumerate(message["content"]):
                yield from _walk_part(part, f"{where}.content[{j}]")


def _walk_part(part: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    yield from _list_unknown(part, part["type"], where)
    if channels := part.get("channel_config"):
        yield from _list_unknown(channels, "channel_config", f"{where}.channel_config")
    for key, namespace in (part.get("tools") or {}).items():
        inner = f"{where}.tools.{key}"
        yield from _list_unknown(namespace, "namespace", inner)
        for i, tool in enumerate(namespace["tools"]):
            yield from _list_unknown(tool, "tool", f"{inner}.tools[{i}]")
    for i, each in enumerate(part.get("response_formats") or ()):
        yield from _list_unknown(each, "response_format", f"{where}.response_formats[{i}]")


def _list_unknown(data: Mapping[str, Any], kind: str, where: str) -> Iterator[tuple[str, str]]:
    """The keys with a value that this kind of object does not have."""
    yield from (
        (where, key)
        for key, value in data.items()
        if key not in _KEYS[kind] and value not in (None, "", [], {})
    )

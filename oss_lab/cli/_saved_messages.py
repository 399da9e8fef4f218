"""Messages as JSON values of a saved chat: Harmony's own format, and the `ids` of their tokens."""

from dataclasses import replace
from typing import Any, TypeVar

from oss_lab.errors import LabError
from oss_lab.harmony.messages import Message, TextContent
from oss_lab.harmony.wire import conversation_from_dict, message_to_dict

T = TypeVar("T")


def messages_to_dict(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    return [
        message_to_dict(message) | ({"ids": list(part.ids)} if part.ids else {})
        for message in messages
        for part in [find_generated(message)]
    ]


def find_generated(message: Message) -> TextContent:
    """The text of a message that has only one; an empty one for any other message."""
    part = message.content[0] if len(message.content) == 1 else None
    return part if isinstance(part, TextContent) else TextContent("")


def messages_from_dict(data: Any, key: str) -> tuple[Message, ...]:
    """The messages in a field, with their ids."""
    items = require(data, key, list)
    plain = [without_ids(item) if isinstance(item, dict) else item for item in items]
    messages = conversation_from_dict({"messages": plain}).messages
    return tuple(map(with_ids, messages, items))


def without_ids(item: dict[str, Any]) -> dict[str, Any]:
    """A message as in Harmony's own format."""
    return {name: value for name, value in item.items() if name != "ids"}


def with_ids(message: Message, item: dict[str, Any]) -> Message:
    """The message with its ids; rendering checks that they decode to the text."""
    ids = item.get("ids")
    if ids is None:
        return message
    if not isinstance(ids, list) or any(type(id) is not int or id < 0 for id in ids):
        raise LabError("`ids` must be a list of token ids")
    part = find_generated(message)
    if message.content != (part,):
        raise LabError("`ids` applies to a message with a single text")
    return replace(message, content=(replace(part, ids=tuple(ids)),))


def require(data: Any, key: str, kind: type[T]) -> T:
    """The field `key`, which must have this type."""
    value = data.get(key) if isinstance(data, dict) else None
    if not isinstance(value, kind):
        names = {str: "text", list: "a list", dict: "an object"}
        raise LabError(f"`{key}` must be {names[kind]}")
    return value

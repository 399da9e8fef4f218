"""A reply as JSON values, and back. No model is needed, and nothing but its activations is lost.

Replies share most of their messages: each prompt repeats the replies before it. So messages are
kept in a table, each once, and a reply has their indices. A message has the format of
openai-harmony and, if the model wrote it, the `ids` of its tokens.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from oss_lab.harmony.events import Diagnostic, DiagnosticKind
from oss_lab.harmony.messages import Conversation, Message, TextContent
from oss_lab.harmony.wire import message_from_dict, message_to_dict
from oss_lab.record.reply import Reply, Timing
from oss_lab.record.token import Token


class MessageTable:
    """Messages by index, each once."""

    def __init__(self, messages: Sequence[Message] = ()) -> None:
        self.messages = [*messages]
        self._indices: dict[str, int] = {}

    def add(self, messages: Sequence[Message]) -> list[int]:
        """The indices of these messages, which are added if they are new."""
        return [self._add(message) for message in messages]

    def _add(self, message: Message) -> int:
        key = json.dumps(message_to_json(message))
        if key not in self._indices:
            self._indices[key] = len(self.messages)
            self.messages.append(message)
        return self._indices[key]

    def take(self, indices: Sequence[int]) -> tuple[Message, ...]:
        return tuple(self.messages[index] for index in indices)


def reply_to_dict(reply: Reply, table: MessageTable) -> dict[str, Any]:
    """A reply as JSON values, without its trace; its messages are in the table."""
    return {
        "prompt": None if reply.prompt is None else table.add(reply.prompt.messages),
        "messages": table.add(reply.messages),
        "prompt_tokens": list(reply.prompt_tokens),
        "ids": list(reply.ids),
        "logprobs": [_number(logprob) for logprob in reply.logprobs],
        "alternatives": [
            [[id, _number(value)] for id, value in token.alternatives] for token in reply.tokens
        ],
        "forced": [token.forced for token in reply.tokens],
        "text": reply.text,
        "stop": reply.stop,
        "diagnostics": [asdict(each) for each in reply.diagnostics],
        "timing": asdict(reply.timing),
        "engine": reply.engine,
        "engine_reason": reply.engine_reason,
        "warnings": list(reply.warnings),
        "unfinished": reply.unfinished,
        "parts": list(reply.parts),
    }


def reply_from_dict(data: dict[str, Any], table: MessageTable) -> Reply:
    """The inverse of `reply_to_dict`."""
    columns = zip(data["ids"], data["logprobs"], data["alternatives"], data["forced"], strict=True)
    tokens = tuple(
        Token(
            id,
            math.nan if logprob is None else logprob,
            tuple((other, value) for other, value in alternatives),
            forced,
        )
        for id, logprob, alternatives, forced in columns
    )
    return Reply(
        None if data["prompt"] is None else Conversation(table.take(data["prompt"])),
        tuple(data["prompt_tokens"]),
        tokens,
        data["text"],
        table.take(data["messages"]),
        data["stop"],
        tuple(
            Diagnostic(DiagnosticKind(each["kind"]), each["position"], each["message"])
            for each in data["diagnostics"]
        ),
        Timing(**data["timing"]),
        engine=data["engine"],
        engine_reason=data["engine_reason"],
        warnings=tuple(data["warnings"]),
        unfinished=data["unfinished"],
        parts=tuple(data["parts"]),
    )


def message_to_json(message: Message) -> dict[str, Any]:
    """A message as JSON values, with the ids of what the model wrote."""
    ids = [part.ids and list(part.ids) for part in message.content if isinstance(part, TextContent)]
    return {**message_to_dict(message), **({"ids": ids} if any(ids) else {})}


def message_from_json(data: dict[str, Any]) -> Message:
    """The inverse of `message_to_json`."""
    ids = iter(data.get("ids", ()))
    message = message_from_dict({key: value for key, value in data.items() if key != "ids"})
    content = tuple(
        replace(part, ids=(given := next(ids, None)) and tuple(given))
        if isinstance(part, TextContent)
        else part
        for part in message.content
    )
    return replace(message, content=content)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None

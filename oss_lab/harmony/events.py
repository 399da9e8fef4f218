"""Events of our streaming parser, including diagnostics of a closed set of kinds.

Token ranges are half-open and count the tokens fed since the parser was created or reset. Joining
the deltas of a message always gives its content.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from oss_lab.harmony.messages import Author, Message


class DiagnosticKind(StrEnum):
    """Everything that can be wrong with a stream, and how the parser recovers."""

    MISSING_START = "missing_start"  # header without <|start|>: its author is the assistant
    TEXT_BETWEEN_MESSAGES = "text_between_messages"  # skipped; reported once per run of text
    UNEXPECTED_STOP = "unexpected_stop"  # between messages: skipped; <|endoftext|> ends a message
    DOUBLE_START = "double_start"  # <|start|> inside a header: the header starts over
    MISSING_MESSAGE_TOKEN = "missing_message_token"  # stop in a header: extra words are content
    MISSING_END = "missing_end"  # <|start|> inside content: the message ends before it
    MISSING_ROLE = "missing_role"  # the assistant is assumed to be the author
    UNKNOWN_AUTHOR = "unknown_author"  # neither a role nor a declared tool: kept as a tool
    INVENTED_MESSAGE = "invented_message"  # the model wrote for another author: a reply ends before
    GLUED_HEADER = "glued_header"  # fields without separator, such as `assistantfinal`: separated
    MALFORMED_HEADER = "malformed_header"  # readable, but not in the order or spacing of the format
    MISSING_CHANNEL = "missing_channel"  # an assistant message without a channel: kept without
    EMPTY_CHANNEL = "empty_channel"  # <|channel|> without a name: no channel
    UNKNOWN_CHANNEL = "unknown_channel"  # kept if it can be rendered again
    DUPLICATE_CHANNEL = "duplicate_channel"  # the last one is used
    WRONG_CHANNEL = "wrong_channel"  # a call on a channel where calls must not be: kept
    MALFORMED_RECIPIENT = "malformed_recipient"  # `to= f`, or no `to=`: read as the recipient
    MISSING_RECIPIENT = "missing_recipient"  # a call that names no tool: not a call
    RECIPIENT_NOT_A_TOOL = "recipient_not_a_tool"  # `to=user`: dropped, the channel decides
    UNKNOWN_RECIPIENT = "unknown_recipient"  # not in the parser's `recipients`: kept
    UNKNOWN_CONTENT_TYPE = "unknown_content_type"  # kept in a call and after <|constrain|>
    MALFORMED_CONTENT_TYPE = "malformed_content_type"  # not a word: dropped
    EXTRA_HEADER_WORDS = "extra_header_words"  # more words than the header has fields for: dropped
    SPECIAL_IN_HEADER = "special_in_header"  # skipped
    SPECIAL_IN_CONTENT = "special_in_content"  # its name becomes part of the content
    WRONG_STOP = "wrong_stop"  # this kind of message must end with another special token
    UNKNOWN_TOKEN = "unknown_token"  # no such id: U+FFFD in content, skipped in a header
    INVALID_UTF8 = "invalid_utf8"  # U+FFFD
    UNFINISHED_HEADER = "unfinished_header"  # the stream ended: extra words are content
    UNFINISHED_MESSAGE = "unfinished_message"  # the stream ended: the message is kept up to there
    UNFINISHED_TURN = "unfinished_turn"  # the stream ended before an answer or a call


@dataclass(frozen=True, slots=True)
class Header:
    """One more token of a header. `channel` is set once it is one of Harmony's three."""

    text: str
    channel: str | None
    tokens: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Start:
    """The header is complete; content follows."""

    author: Author
    channel: str | None
    recipient: str | None
    content_type: str | None
    tokens: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Delta:
    """New text of the open message, and the tokens that produced it."""

    text: str
    channel: str | None
    recipient: str | None
    tokens: tuple[int, int]


@dataclass(frozen=True, slots=True)
class End:
    """The message is complete; `stop` is the special token's name, None if there was none."""

    message: Message
    stop: str | None
    tokens: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """Something is wrong at token `position`; `message` explains it."""

    kind: DiagnosticKind
    position: int
    message: str


Event = Header | Start | Delta | End | Diagnostic
"""What `StreamParser` returns."""


def event_to_dict(event: Event) -> dict[str, Any]:
    """An event as a JSON object, with its type under `event`. Omits the message of `End`."""
    match event:
        case Header(text, channel, tokens):
            return {"event": "header", "text": text, "channel": channel, "tokens": tokens}
        case Start(author, channel, recipient, content_type, tokens):
            return {
                "event": "start",
                "role": author.role,
                "name": author.name,
                "channel": channel,
                "recipient": recipient,
                "content_type": content_type,
                "tokens": tokens,
            }
        case Delta(text, channel, recipient, tokens):
            return {
                "event": "delta",
                "text": text,
                "channel": channel,
                "recipient": recipient,
                "tokens": tokens,
            }
        case End(_, stop, tokens):
            return {"event": "end", "stop": stop, "tokens": tokens}
        case Diagnostic(kind, position, message):
            return {
                "event": "diagnostic",
                "kind": kind,
                "position": position,
                "message": message,
            }

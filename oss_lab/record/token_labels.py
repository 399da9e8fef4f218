"""What each token of a conversation is: its text, and where in Harmony it stands.

Message, role, channel and recipient come from the token ids alone, by the streaming parser, so
that anything known per token can be grouped by them.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

import tiktoken

from oss_lab.errors import LabError
from oss_lab.harmony import Delta, End, StreamParser
from oss_lab.harmony.messages import CHANNELS, Role
from oss_lab.harmony.specials import token_bytes
from oss_lab.record.reply import Reply


@dataclass(frozen=True)
class TokenLabel:
    """One token of a conversation.

    Attributes:
        text: what it stands for; a special token's name.
        message: number of its message in the stream; -1 between messages.
        part: `content`, or `format` for headers and the special tokens around a message.
    """

    text: str
    message: int = -1
    role: Role | None = None
    channel: str | None = None
    recipient: str | None = None
    part: Literal["content", "format"] = "format"

    @property
    def section(self) -> str:
        """What its message is called: its channel, or its role where it has none."""
        return self.channel or self.role or "between messages"


@dataclass(frozen=True)
class Section:
    """Neighboring tokens of one message: positions start ... end - 1."""

    name: str
    start: int
    end: int


def token_labels(
    encoding: tiktoken.Encoding, ids: Sequence[int], role: Role | None = None
) -> tuple[TokenLabel, ...]:
    """Label each id of a stream; `role` as in StreamParser, None where it begins with <|start|>."""
    labels = [TokenLabel(token_text(encoding, id)) for id in ids]
    parser = StreamParser(encoding, role)
    events = parser.feed(ids) + parser.finish()
    ends = [event for event in events if isinstance(event, End)]
    for number, end in enumerate(ends):
        message = end.message
        for n in range(*end.tokens):
            labels[n] = replace(
                labels[n],
                message=number,
                role=message.author.role,
                channel=message.channel,
                recipient=message.recipient,
            )
    for delta in events:
        if isinstance(delta, Delta):
            for n in range(*delta.tokens):
                labels[n] = replace(labels[n], part="content")
    return tuple(labels)


def reply_tokens(reply: Reply, encoding: tiktoken.Encoding) -> tuple[TokenLabel, ...]:
    """Labels of a reply's prompt and of the reply, in the order in which `Lab.trace` sees them."""
    return token_labels(encoding, [*reply.prompt_tokens, *reply.ids])


def sections(tokens: Sequence[TokenLabel]) -> list[Section]:
    """The messages that the tokens belong to, named by channel, or by role where there is none."""
    found, start = [], 0
    for _, run in groupby(tokens, key=lambda token: token.message):
        part = list(run)
        found.append(Section(part[0].section, start, start + len(part)))
        start += len(part)
    return found


def on_channels(tokens: Sequence[TokenLabel], channels: Collection[str]) -> list[int]:
    """Positions of the tokens of messages on these channels, headers and ends included.

    Raises:
        LabError: no token is on any of them.
    """
    found = [n for n, token in enumerate(tokens) if token.channel in channels]
    if not found:
        there = sorted({token.channel for token in tokens if token.channel}) or ["none"]
        raise LabError(
            f"no token is on {' or '.join(channels)}; the channels here are {', '.join(there)}"
        )
    return found


def content_on(tokens: Sequence[TokenLabel], channel: str) -> list[int]:
    """Positions of the content on a channel, without headers and ends."""
    return [
        n for n, token in enumerate(tokens) if (token.channel, token.part) == (channel, "content")
    ]


def channel_counts(reply: Reply, encoding: tiktoken.Encoding) -> Counter[str]:
    """Tokens of a reply's content by channel; everything else counts as `format`."""
    labels = token_labels(encoding, reply.ids, "assistant")
    channels = ((label.channel or "") if label.part == "content" else "" for label in labels)
    return Counter(channel if channel in CHANNELS else "format" for channel in channels)


def token_text(encoding: tiktoken.Encoding, token: int) -> str:
    """What a token stands for; bytes that are no UTF-8 in hexadecimal."""
    raw = token_bytes(encoding, token)
    return f"<no token {token}>" if raw is None else raw.decode("utf-8", "backslashreplace")


def text_of(encoding: tiktoken.Encoding, ids: Sequence[int]) -> str:
    """The text of ids, special tokens by name; bytes that are no UTF-8 in hexadecimal."""
    raw = [token_bytes(encoding, id) or f"<no token {id}>".encode() for id in ids]
    return b"".join(raw).decode("utf-8", "backslashreplace")

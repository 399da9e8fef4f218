"""Label each token of a conversation with its text and its place in the Harmony format.

The streaming parser finds message, role, channel and recipient from the token ids alone. You can
group any value that has one number per token by these labels.
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
from oss_lab.hooks.arguments import check_arguments
from oss_lab.record.reply import Reply


@dataclass(frozen=True)
class TokenLabel:
    """One token of a conversation.

    Attributes:
        text: the token's text; for a special token, its name.
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
        """Name of its message: the channel, or the role if there is none."""
        return self.channel or self.role or "between messages"


@dataclass(frozen=True)
class Section:
    """Adjacent tokens of one message: positions start ... end - 1."""

    name: str
    start: int
    end: int


@check_arguments
def label_token_ids(
    encoding: tiktoken.Encoding, ids: Sequence[int], role: Role | None = None
) -> tuple[TokenLabel, ...]:
    """Label each id of a stream. `role` is as in StreamParser: None if it starts with <|start|>."""
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


@check_arguments
def label_reply(reply: Reply, encoding: tiktoken.Encoding) -> tuple[TokenLabel, ...]:
    """Label the tokens of a reply's prompt, then those of the reply, as `Lab.trace` orders them."""
    return label_token_ids(encoding, [*reply.prompt_tokens, *reply.ids])


def group_by_message(tokens: Sequence[TokenLabel]) -> list[Section]:
    """Group tokens by message. Each group is named by channel, or by role if there is none."""
    found, start = [], 0
    for _, run in groupby(tokens, key=lambda token: token.message):
        part = list(run)
        found.append(Section(part[0].section, start, start + len(part)))
        start += len(part)
    return found


def find_channel_tokens(tokens: Sequence[TokenLabel], channels: Collection[str]) -> list[int]:
    """Positions of all tokens of messages on these channels, with headers and end tokens.

    Raises:
        LabError: no token is on any of them.
    """
    found = [n for n, token in enumerate(tokens) if token.channel in channels]
    if not found:
        there = sorted({token.channel for token in tokens if token.channel}) or ["none"]
        raise LabError(
            f"no token is on {' or '.join(channels)}; the channels present are {', '.join(there)}"
        )
    return found


def find_content_tokens(tokens: Sequence[TokenLabel], channel: str) -> list[int]:
    """Positions of the content on a channel, without headers and end tokens."""
    return [
        n for n, token in enumerate(tokens) if (token.channel, token.part) == (channel, "content")
    ]


def count_channel_tokens(reply: Reply, encoding: tiktoken.Encoding) -> Counter[str]:
    """Count a reply's content tokens by channel; all other tokens count as `format`."""
    labels = label_token_ids(encoding, reply.ids, "assistant")
    channels = ((label.channel or "") if label.part == "content" else "" for label in labels)
    return Counter(channel if channel in CHANNELS else "format" for channel in channels)


def token_text(encoding: tiktoken.Encoding, token: int) -> str:
    """The text of a token; bytes that are not UTF-8 in hexadecimal."""
    raw = token_bytes(encoding, token)
    return f"<no token {token}>" if raw is None else raw.decode("utf-8", "backslashreplace")


def decode_tokens(encoding: tiktoken.Encoding, ids: Sequence[int]) -> str:
    """The text of ids, special tokens by name; bytes that are not UTF-8 in hexadecimal."""
    raw = [token_bytes(encoding, id) or f"<no token {id}>".encode() for id in ids]
    return b"".join(raw).decode("utf-8", "backslashreplace")

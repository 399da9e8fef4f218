"""What to write for a token: its text with everything visible, and where in Harmony it stands.

A newline is shown as ↵, a space as ␣, other invisible characters by their code point, bytes that
are no UTF-8 in hexadecimal. Role and channel come from the token ids alone, by the streaming
parser. `plotly_text` keeps plotly from reading a token as markup or mathematics.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

import tiktoken

from oss_lab.harmony import Delta, End, StreamParser
from oss_lab.harmony.messages import Role
from oss_lab.harmony.specials import token_bytes
from oss_lab.reply import Reply

LONGEST = 24  # characters of a token that are shown
SYMBOLS = {"\n": "↵", "\r": "␍", "\t": "⇥", " ": "␣"}
PLOTLY_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;"})


@dataclass(frozen=True)
class TokenLabel:
    """One token of a conversation.

    Attributes:
        text: what it stands for; a special token's name.
        shown: the same with everything visible, at most LONGEST characters.
        message: number of its message in the stream; -1 between messages.
        part: `content`, or `format` for headers and the special tokens around a message.
    """

    text: str
    shown: str
    message: int = -1
    role: Role | None = None
    channel: str | None = None
    part: Literal["content", "format"] = "format"


@dataclass(frozen=True)
class Section:
    """Neighbouring tokens of one message: positions start ... end - 1."""

    name: str
    start: int
    end: int


def token_labels(
    encoding: tiktoken.Encoding, ids: Sequence[int], role: Role | None = None
) -> tuple[TokenLabel, ...]:
    """Label each id of a stream; `role` as in StreamParser, None where it begins with <|start|>."""
    labels = [TokenLabel(text, visible(text)) for text in (_text(encoding, id) for id in ids)]
    parser = StreamParser(encoding, role)
    events = parser.feed(ids) + parser.finish()
    ends = [event for event in events if isinstance(event, End)]
    for number, end in enumerate(ends):
        author, channel = end.message.author.role, end.message.channel
        for n in range(*end.tokens):
            labels[n] = replace(labels[n], message=number, role=author, channel=channel)
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
        name = part[0].channel or part[0].role or "between messages"
        found.append(Section(name, start, start + len(part)))
        start += len(part)
    return found


def visible(text: str) -> str:
    """The text with each invisible character made visible, shortened in its middle."""
    shown = "".join(map(_visible_character, text))
    if len(shown) <= LONGEST:
        return shown
    return f"{shown[: LONGEST // 2]}…{shown[-(LONGEST // 2 - 1) :]}"


def plotly_text(text: str) -> str:
    """Text that plotly shows as it stands: no tags, entities or $mathematics$."""
    return text.translate(PLOTLY_ENTITIES)


def _text(encoding: tiktoken.Encoding, token: int) -> str:
    raw = token_bytes(encoding, token)
    return f"<no token {token}>" if raw is None else raw.decode("utf-8", "backslashreplace")


def _visible_character(character: str) -> str:
    if character in SYMBOLS:
        return SYMBOLS[character]
    if unicodedata.category(character)[0] in "CZ":  # control, format, other spaces, unassigned
        return f"U+{ord(character):04X}"
    return character

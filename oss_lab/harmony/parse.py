"""Tokens -> events, one token at a time: the parser that chat, generation and traces use.

By default the parser never raises: whatever the stream contains, it continues and reports a typed
diagnostic with the token's position. In strict mode it raises instead. Each token takes O(1) time,
except the one that completes a header or a message. The parser reads both layouts that render.py
writes. It needs no model and does not act on tool calls. For openai-harmony's behavior see
library_parser.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

import tiktoken

from oss_lab.errors import HarmonyError
from oss_lab.harmony.events import Delta, Diagnostic, End, Event, Header, Start
from oss_lab.harmony.events import DiagnosticKind as Kind
from oss_lab.harmony.header import HeaderFields, parse_header, split_unfinished
from oss_lab.harmony.messages import CHANNELS, ROLES, Message, Role, TextContent
from oss_lab.harmony.specials import (
    CHANNEL,
    CONSTRAIN,
    ENDOFTEXT,
    MESSAGE,
    START,
    STOPS,
    find_special_tokens,
    token_bytes,
)

State = Literal["ExpectStart", "Header", "Content"]
_LONGEST_CHANNEL = 16  # bytes after <|channel|> searched for a known channel name


class StreamParser:
    """A streaming parser: `feed` it tokens, use the events it returns, then call `finish`.

    Args:
        encoding: any vocabulary with Harmony's special tokens.
        role: author of the first message, if the stream starts after `<|start|>role` (as model
            output does). None for a stream that starts with `<|start|>`.
        strict: raise `HarmonyError` at the first problem instead of returning this call's events.
            The parser has recovered by then, so you can continue to feed it.
        recipients: the available tools; other recipients are reported. None allows any.

    Attributes:
        messages: the finished messages.
        diagnostics: all diagnostics so far.
        state: what is expected next: `ExpectStart`, `Header` or `Content`.
        position: number of tokens fed.
    """

    def __init__(
        self,
        encoding: tiktoken.Encoding,
        role: Role | None = "assistant",
        strict: bool = False,
        *,
        recipients: Collection[str] | None = None,
    ) -> None:
        if role is not None and role not in ROLES:
            raise HarmonyError(f"unknown role {role!r}; use one of {', '.join(ROLES)}")
        self.strict = strict
        self._encoding = encoding
        self._names = find_special_tokens(encoding).names
        self._recipients = recipients
        self.reset(role)

    def reset(self, role: Role | None = "assistant") -> None:
        """Forget everything and start a new stream."""
        self.messages: list[Message] = []
        self.diagnostics: list[Diagnostic] = []
        self.position = 0
        self._events: list[Event] = []
        self._raised = 0  # number of diagnostics that strict mode has already raised
        self._skipping = False  # inside a run of text between messages
        self._open: HeaderFields | None = None
        self._begin_header(role)
        self.state: State = "ExpectStart" if role is None else "Header"

    @property
    def role(self) -> Role | None:
        """Role of the open message, or the given role while its header is being read."""
        return self._open.author.role if self._open else self._role

    @property
    def channel(self) -> str | None:
        return self._open.channel if self._open else None

    @property
    def recipient(self) -> str | None:
        return self._open.recipient if self._open else None

    @property
    def content_type(self) -> str | None:
        return self._open.content_type if self._open else None

    @property
    def content(self) -> str:
        """Text of the open message so far (joined again on each access)."""
        return "".join(self._text)

    def feed(self, tokens: int | Iterable[int]) -> list[Event]:
        """Process one token or several; returns the events that they cause."""
        for token in (tokens,) if isinstance(tokens, int) else tokens:
            if self.state == "Content":
                self._feed_content(int(token))
            elif self.state == "Header":
                self._feed_header(int(token))
            else:
                self._feed_outside(int(token))
            self.position += 1
            self._raise_if_strict()
        return self._take_events()

    def finish(self) -> list[Event]:
        """End the stream: close an open header or message with what it has so far."""
        if self.state == "Header" and self.position > self._header_from:
            self._report(Kind.UNFINISHED_HEADER, "the stream ended inside a header")
            self._close_header(None)
        elif self.state == "Content":
            self._report(Kind.UNFINISHED_MESSAGE, "the stream ended inside a message")
            self._end_message(None)
        self.state = "ExpectStart"
        self._raise_if_strict()
        return self._take_events()

    # Between messages

    def _feed_outside(self, token: int) -> None:
        name = self._names.get(token)
        if name == START:
            self._begin_header(None)
        elif name in (CHANNEL, MESSAGE):
            self._report(Kind.MISSING_START, f"{name} without {START}; the assistant is assumed")
            self._begin_header("assistant")
            self._feed_header(token)
        elif name in STOPS or name == ENDOFTEXT:
            self._report(Kind.UNEXPECTED_STOP, f"{name} between messages; skipped")
        elif not self._skipping:
            self._report(Kind.TEXT_BETWEEN_MESSAGES, f"token id {token} between messages; skipped")
            self._skipping = True
            return
        else:
            return
        self._skipping = False

    # Inside a header

    def _begin_header(self, role: Role | None) -> None:
        self.state = "Header"
        self._role: Role | None = role
        self._header_from = self.position
        self._parts: list[tuple[str | None, bytearray]] = [(None, bytearray())]
        self._early: str | None = None
        self._text: list[str] = []
        self._ids: list[int] = []  # of the content
        self._pending = b""  # content bytes of an incomplete character

    def _feed_header(self, token: int) -> None:
        name = self._names.get(token)
        if name is None:
            data = token_bytes(self._encoding, token)
            if data is None:
                self._report(Kind.UNKNOWN_TOKEN, f"id {token} is not in the vocabulary")
                return
            self._parts[-1][1].extend(data)
            self._header_event(data.decode(errors="replace"))
        elif name == MESSAGE:
            self._open_message()
        elif name in (CHANNEL, CONSTRAIN):
            self._parts.append((name, bytearray()))
            self._header_event(name)
        elif name == START:
            self._report(Kind.DOUBLE_START, f"{START} inside a header; the header starts over")
            self._begin_header(None)
        elif name in STOPS or name == ENDOFTEXT:
            self._report(Kind.MISSING_MESSAGE_TOKEN, f"{name} inside a header, before {MESSAGE}")
            self._close_header(name)
        else:
            self._report(Kind.SPECIAL_IN_HEADER, f"{name} inside a header; skipped")

    def _header_event(self, text: str) -> None:
        marker, data = self._parts[-1]
        if marker == CHANNEL:  # reported as soon as its first word is known
            words = data[:_LONGEST_CHANNEL].decode(errors="replace").split(None, 1)
            self._early = words[0] if words and words[0] in CHANNELS else None
        self._events.append(Header(text, self._early, (self.position, self.position + 1)))

    def _decode_parts(self) -> list[tuple[str | None, str]]:
        return [(marker, data.decode(errors="replace")) for marker, data in self._parts]

    def _open_message(self) -> None:
        self._start_message(parse_header(self._decode_parts(), self._role), self.position + 1)

    def _start_message(self, header: HeaderFields, end: int) -> None:
        for kind, message in header.problems:
            self._report(kind, message)
        known = self._recipients
        if known is not None and header.recipient and header.recipient not in known:
            self._report(Kind.UNKNOWN_RECIPIENT, f"unknown recipient {header.recipient!r}")
        self._open, self._role = header, None
        self._content_from = end  # first content token that no delta covers yet
        self.state = "Content"
        self._events.append(
            Start(
                header.author,
                header.channel,
                header.recipient,
                header.content_type,
                (self._header_from, end),
            )
        )

    def _close_header(self, stop: str | None) -> None:
        """Close a header that has no `<|message|>`; its extra words become the content."""
        parts, text = split_unfinished(self._decode_parts(), self._role)
        if text or any(marker or words for marker, words in parts):
            first = self._header_from
            self._start_message(parse_header(parts, self._role), self.position)
            self._content_from = first
            self._add_text(text, self.position)
            self._end_message(stop)
        self.state, self._role = "ExpectStart", None

    # Inside content

    def _feed_content(self, token: int) -> None:
        name = self._names.get(token)
        self._ids.append(token)
        if name is None:
            data = token_bytes(self._encoding, token)
            if data is None:
                self._report(Kind.UNKNOWN_TOKEN, f"id {token} is not in the vocabulary")
                self._flush()
                self._add_text("\ufffd")
            else:
                self._add_text(self._decode(data))
        elif name in STOPS:
            self._end_message(name)
        elif name == ENDOFTEXT:
            self._report(Kind.UNEXPECTED_STOP, f"{name} inside a message; the message ends here")
            self._end_message(name)
        elif name == START:
            self._report(Kind.MISSING_END, f"{START} inside a message; the message ends here")
            self._end_message(None)
            self._begin_header(None)
        else:
            self._report(Kind.SPECIAL_IN_CONTENT, f"{name} inside a message; kept as text")
            self._flush()
            self._add_text(name)

    def _decode(self, data: bytes) -> str:
        """The text that `data` completes. An incomplete character waits for the next bytes."""
        data, text = self._pending + data, ""
        self._pending = b""
        while data:
            try:
                return text + data.decode()
            except UnicodeDecodeError as error:
                text += data[: error.start].decode()
                if error.reason == "unexpected end of data":
                    self._pending = data[error.start :]
                    return text
                self._report(Kind.INVALID_UTF8, "bytes that are not UTF-8; replaced by U+FFFD")
                text += "\ufffd"
                data = data[error.end :]
        return text

    def _flush(self) -> None:
        """Replace an incomplete character by U+FFFD, in the delta and in the content."""
        if self._pending:
            self._report(Kind.INVALID_UTF8, "an incomplete UTF-8 character; replaced by U+FFFD")
            self._pending = b""
            self._add_text("\ufffd", self.position)

    def _add_text(self, text: str, end: int | None = None) -> None:
        assert self._open is not None
        if text:
            end = self.position + 1 if end is None else end
            self._text.append(text)
            self._events.append(
                Delta(text, self._open.channel, self._open.recipient, (self._content_from, end))
            )
            self._content_from = end

    def _end_message(self, stop: str | None) -> None:
        assert self._open is not None
        self._flush()
        content_ids = self._ids if stop is None else self._ids[:-1]
        header, content = self._open, (TextContent(self.content, tuple(content_ids)),)
        message = Message(
            header.author, content, header.channel, header.recipient, header.content_type
        )
        self.messages.append(message)
        end = self.position if stop is None else self.position + 1
        self._events.append(End(message, stop, (self._header_from, end)))
        self._open, self._text, self.state = None, [], "ExpectStart"

    # Reporting

    def _report(self, kind: Kind, message: str) -> None:
        diagnostic = Diagnostic(kind, self.position, message)
        self.diagnostics.append(diagnostic)
        self._events.append(diagnostic)

    def _raise_if_strict(self) -> None:
        if self.strict and len(self.diagnostics) > self._raised:
            first = self.diagnostics[self._raised]
            self._raised = len(self.diagnostics)
            self._events = []
            raise HarmonyError(f"token {first.position}: {first.kind}: {first.message}")

    def _take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events


def parse(
    tokens: Iterable[int],
    encoding: tiktoken.Encoding,
    role: Role | None = None,
    strict: bool = False,
) -> list[Message]:
    """All messages of a stream, including an unfinished one at its end."""
    parser = StreamParser(encoding, role, strict)
    parser.feed(tokens)
    parser.finish()
    return parser.messages

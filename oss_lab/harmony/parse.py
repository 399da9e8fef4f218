"""Tokens -> events, one token at a time: the parser that chat, generation and traces use.

By default the parser never raises: whatever ids the stream contains, it continues. It reports each
deviation from what the system message demands as a typed diagnostic with the token's position. In
strict mode it raises instead. Each token takes O(1) time, except the one that completes a header or
a message. The parser reads both layouts that render.py writes. It needs no model and does not act
on tool calls. For openai-harmony's behavior see library_parser.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Literal

import tiktoken

from oss_lab.errors import HarmonyError
from oss_lab.harmony.content import OpenMessage
from oss_lab.harmony.demands import Demands, Problem
from oss_lab.harmony.event_log import EventLog
from oss_lab.harmony.events import Diagnostic, End, Event, Header
from oss_lab.harmony.events import DiagnosticKind as Kind
from oss_lab.harmony.header import HeaderFields
from oss_lab.harmony.header_reader import HeaderReader
from oss_lab.harmony.messages import CHANNELS, ROLES, Message, Role
from oss_lab.harmony.specials import (
    CALL,
    CHANNEL,
    CONSTRAIN,
    ENDOFTEXT,
    MESSAGE,
    RETURN,
    START,
    STOPS,
    find_special_tokens,
    iterate_ids,
    token_bytes,
)

State = Literal["ExpectStart", "Header", "Content"]


class StreamParser:
    """A streaming parser: `feed` it tokens, use the events it returns, then call `finish`.

    Args:
        encoding: any vocabulary with Harmony's special tokens.
        role: author of the first message, if the stream starts after `<|start|>role` (as model
            output does). None for a stream that starts with `<|start|>`. With "assistant", messages
            of other authors are reported as invented.
        strict: raise `HarmonyError` at the first problem instead of returning this call's events.
            The parser has recovered by then, so you can continue to feed it.
        recipients: the declared tools, such as `functions.f`; others are reported. None allows any.
        channels: the channels that the system message demands. If empty, a message needs none.

    Attributes:
        messages: the finished messages.
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
        channels: Collection[str] = CHANNELS,
    ) -> None:
        if role is not None and role not in ROLES:
            raise HarmonyError(f"unknown role {role!r}; use one of {', '.join(ROLES)}")
        self.strict = strict
        self._encoding = encoding
        self._names = find_special_tokens(encoding).names
        self._recipients, self._channels = recipients, channels
        self.reset(role)

    def reset(self, role: Role | None = "assistant") -> None:
        """Forget everything and start a new stream."""
        self.messages: list[Message] = []
        self._log = EventLog(is_strict=self.strict)
        self.position = 0
        self.state: State = "ExpectStart"
        self._demands = Demands(self._recipients, self._channels, is_reply=role == "assistant")
        self._is_skipping = False  # inside a run of text between messages
        self._last_stop: str | None = None
        self._header = HeaderReader(role, 0)
        self._open: OpenMessage | None = None
        if role is not None:
            self.state = "Header"

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """All diagnostics so far."""
        return self._log.diagnostics

    @property
    def role(self) -> Role | None:
        """Role of the open message, or the given role while its header is being read."""
        return self._open.header.author.role if self._open else self._header.role

    @property
    def channel(self) -> str | None:
        return self._open.header.channel if self._open else None

    @property
    def recipient(self) -> str | None:
        return self._open.header.recipient if self._open else None

    @property
    def content_type(self) -> str | None:
        return self._open.header.content_type if self._open else None

    @property
    def content(self) -> str:
        """Text of the open message so far (joined again on each access)."""
        return self._open.text if self._open else ""

    def feed(self, tokens: int | Iterable[int]) -> list[Event]:
        """Process one token or several; returns the events that they cause.

        Raises:
            HarmonyError: these are not token ids.
        """
        for token in iterate_ids(tokens):
            if self._open:
                self._feed_content(self._open, token)
            elif self.state == "Header":
                self._feed_header(token)
            else:
                self._feed_outside(token)
            self.position += 1
            self._log.raise_if_strict()
        return self._log.take()

    def finish(self) -> list[Event]:
        """End the stream: close an open header or message with what it has so far."""
        if self._open:
            self._report(Kind.UNFINISHED_MESSAGE, "the stream ended inside a message")
            self._end_message(self._open, None)
        elif self.state == "Header":
            if self.position > self._header.start and not self._is_prompt():
                self._report(Kind.UNFINISHED_HEADER, "the stream ended inside a header")
                self._close_header(None)
        elif self.messages and self._last_stop not in (RETURN, CALL):
            self._report_all(self._demands.check_end(self.messages[-1]))
        self.state = "ExpectStart"
        self._log.raise_if_strict()
        return self._log.take()

    # Between messages

    def _feed_outside(self, token: int) -> None:
        name = self._names.get(token)
        if name in (START, CHANNEL, MESSAGE) and self._last_stop == RETURN:
            self._report(
                Kind.WRONG_STOP,
                f"a message after {RETURN}, which ends the conversation",
            )
        if name == START:
            self._begin_header(None)
        elif name in (CHANNEL, MESSAGE):
            self._report(
                Kind.MISSING_START,
                f"{name} without {START}; the assistant is assumed",
            )
            self._begin_header("assistant")
            self._feed_header(token)
        elif name in STOPS or name == ENDOFTEXT:
            self._report(Kind.UNEXPECTED_STOP, f"{name} between messages; skipped")
        elif not self._is_skipping:
            self._report(
                Kind.TEXT_BETWEEN_MESSAGES,
                f"token id {token} between messages; skipped",
            )
            self._is_skipping = True
            return
        else:
            return
        self._is_skipping = False

    # Inside a header

    def _begin_header(self, role: Role | None) -> None:
        self.state = "Header"
        self._header = HeaderReader(role, self.position)

    def _feed_header(self, token: int) -> None:
        name = self._names.get(token)
        if name is None:
            data = token_bytes(self._encoding, token)
            if data is None:
                self._report(Kind.UNKNOWN_TOKEN, f"id {token} is not in the vocabulary")
                return
            self._header.add_text(data)
            self._add_header_event(data.decode(errors="replace"))
        elif name == MESSAGE:
            self._start_message(self._header.read(), self.position + 1)
        elif name in (CHANNEL, CONSTRAIN):
            self._header.add_marker(name)
            self._add_header_event(name)
        elif name == START:
            self._report(Kind.DOUBLE_START, f"{START} inside a header; the header starts over")
            self._begin_header(None)
        elif name in STOPS or name == ENDOFTEXT:
            self._report(
                Kind.MISSING_MESSAGE_TOKEN,
                f"{name} inside a header, before {MESSAGE}",
            )
            self._close_header(name)
        else:
            self._report(Kind.SPECIAL_IN_HEADER, f"{name} inside a header; skipped")

    def _is_prompt(self) -> bool:
        """Whether the stream ends where the model continues, after `<|start|>role`."""
        return not self._demands.is_reply and self._header.is_only_role()

    def _add_header_event(self, text: str) -> None:
        tokens = (self.position, self.position + 1)
        self._log.add(Header(text, self._header.channel, tokens))

    def _start_message(self, header: HeaderFields, end: int) -> OpenMessage:
        header.problems += self._demands.check_header(header)
        self._report_all(header.problems)
        self._open = OpenMessage(header, self._header.start, end, self._log)
        self.state = "Content"
        self._log.add(self._open.build_start())
        return self._open

    def _close_header(self, stop: str | None) -> None:
        """Close a header that has no `<|message|>`; its extra words become the content."""
        header, text = self._header.recover(is_cut=stop is None)
        if header is not None:
            message = self._start_message(header, self.position)
            message.content_start = message.start
            message.add_text(text, self.position)
            self._end_message(message, stop)
        self.state = "ExpectStart"
        self._header.role = None

    # Inside content

    def _feed_content(self, message: OpenMessage, token: int) -> None:
        name = self._names.get(token)
        if name in STOPS:
            self._end_message(message, name)
        elif name == ENDOFTEXT:
            self._report(
                Kind.UNEXPECTED_STOP,
                f"{name} inside a message; the message ends here",
            )
            self._end_message(message, name)
        elif name == START:
            self._report(Kind.MISSING_END, f"{START} inside a message; the message ends here")
            self._end_message(message, None)
            self._begin_header(None)
        else:
            message.add_token(token, name, token_bytes(self._encoding, token), self.position)

    def _end_message(self, message: OpenMessage, stop: str | None) -> None:
        message.flush(self.position)
        if stop in STOPS:
            self._report_all(self._demands.check_stop(message.header, stop))
        self.messages.append(message.build())
        end = self.position if stop is None else self.position + 1
        self._log.add(End(self.messages[-1], stop, (message.start, end)))
        self._open, self.state, self._last_stop = None, "ExpectStart", stop
        self._header.role = None

    def _report(self, kind: Kind, message: str) -> None:
        self._log.report(self.position, kind, message)

    def _report_all(self, problems: Iterable[Problem]) -> None:
        for kind, message in problems:
            self._report(kind, message)


def parse(
    tokens: Iterable[int],
    encoding: tiktoken.Encoding,
    role: Role | None = None,
    strict: bool = False,
    *,
    recipients: Collection[str] | None = None,
    channels: Collection[str] = CHANNELS,
) -> list[Message]:
    """All messages of a stream, including an unfinished one at its end. See StreamParser."""
    parser = StreamParser(encoding, role, strict, recipients=recipients, channels=channels)
    parser.feed(tokens)
    parser.finish()
    return parser.messages

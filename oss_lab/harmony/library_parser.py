"""openai-harmony 0.0.8's `StreamableParser`, state for state, including its defects.

Use it to debug a port. Like the library, it raises on malformed streams, loses text after broken
UTF-8, and cannot read `role:name`. oss_lab itself uses parse.py. Not reproduced: the batch call and
Python's type errors. Source: the library's observed behavior and its src/encoding.rs. Error
messages keep the library's wording.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Literal, cast

import tiktoken

from oss_lab.errors import HarmonyError
from oss_lab.harmony.messages import ROLES, Author, Message, Role, TextContent
from oss_lab.harmony.specials import (
    CHANNEL,
    CONSTRAIN,
    MESSAGE,
    START,
    STOPS,
    find_special_tokens,
    token_bytes,
)

State = Literal["ExpectStart", "Header", "Content"]

# Rust has two definitions of white space, and the library uses both. Unicode's ends a channel name
# and is stripped from both ends of a header. Words are split at five ASCII characters only.
_UNICODE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_ASCII_SPACES = re.compile(r"[\t\n\f\r ]+")
_CHANNEL_VALUE = re.compile(f"[^<{_UNICODE_SPACE}]*")


@dataclass(frozen=True, slots=True)
class LibraryHeader:
    """What the library reads from a header."""

    author: Author
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None


@dataclass(slots=True)
class LibraryParser:
    """Feed tokens with `process`, end with `process_eos`, and read the attributes in between.

    Args:
        encoding: any vocabulary with Harmony's special tokens.
        role: role of the first message, if the stream starts after `<|start|>role`.
        strict: if False, a stop token closes a message that has no `<|message|>`.

    Raises (`process`, `process_eos`):
        HarmonyError: in the library's wording. You can continue to feed tokens.
        OverflowError: an id is negative or does not fit in 32 bits.
    """

    encoding: tiktoken.Encoding
    role: Role | None = None
    strict: bool = True
    state: State = "ExpectStart"
    header: LibraryHeader | None = None
    last_content_delta: str | None = None
    messages: list[Message] = field(default_factory=list)
    _header_tokens: list[int] = field(default_factory=list)
    _content: list[str] = field(default_factory=list)
    _pending: bytes = b""  # content bytes that are not decoded yet
    _broken: bool = False  # an id outside the vocabulary: the rest of the message is lost

    def __post_init__(self) -> None:
        if self.role is not None:
            if self.role not in ROLES:
                raise HarmonyError(f"unknown role: {self.role}")
            self.state = "Header"

    @property
    def current_role(self) -> Role | None:
        return self.header.author.role if self.header else self.role

    @property
    def current_channel(self) -> str | None:
        return self.header.channel if self.header else None

    @property
    def current_recipient(self) -> str | None:
        return self.header.recipient if self.header else None

    @property
    def current_content_type(self) -> str | None:
        return self.header.content_type if self.header else None

    @property
    def current_content(self) -> str:
        return "".join(self._content)

    def process(self, token: int) -> None:
        """Process one token. O(1), except for the token that ends a header or a message."""
        if not -(2**63) <= token < 2**63:
            raise OverflowError("Python int too large to convert to C long")
        if not 0 <= token < 2**32:
            raise OverflowError("out of range integral type conversion attempted")
        names = find_special_tokens(self.encoding)
        is_stop = names.names.get(token) in STOPS
        self.last_content_delta = None
        if self.state == "ExpectStart":
            if token != names.ids[START]:
                raise HarmonyError(
                    f"Unexpected token {token} while expecting start token {names.ids[START]}"
                )
            self.state = "Header"
        elif self.state == "Header":
            if token == names.ids[MESSAGE]:
                self._open_content()
            elif is_stop and not self.strict:
                self._close_header()
            else:
                self._header_tokens.append(token)
        elif is_stop:
            self._close_content()
        else:
            self._take_content(token)

    def process_eos(self) -> None:
        """End the stream and close an open message."""
        self.last_content_delta = None
        if self.state == "Header":
            raise HarmonyError("Unexpected EOS while waiting for message header to complete")
        if self.state == "Content":
            self._close_content()

    def _header_text(self) -> str:
        """The header as text, special tokens included."""
        data = bytearray()  # bytes would be copied at every token
        for token in self._header_tokens:
            piece = _library_bytes(self.encoding, token)
            if piece is None:
                raise HarmonyError(
                    "Could not decode tokens: Invalid token error: Invalid token for decoding:"
                    f" {token}"
                )
            data += piece
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            cut = error.reason == "unexpected end of data"
            kind = "incomplete utf-8 byte" if cut else "invalid utf-8"
            size = "" if cut else f" of {error.end - error.start} bytes"
            raise HarmonyError(
                f"Could not decode tokens: Invalid utf-8 sequence: {kind} sequence{size}"
                f" from index {error.start}"
            ) from None

    def _open_content(self) -> None:
        try:
            text = self._header_text()
        except HarmonyError:
            raise HarmonyError("could not decode header") from None
        finally:
            self._header_tokens = []
            self.state = "ExpectStart"  # the state after an error; the given role stays pending
        self.header = parse_library_header(text, self.role)
        self.role = None
        self.state = "Content"

    def _close_header(self) -> None:
        """Not strict: the words after role and channel become the content."""
        if self.role is not None and self._header_tokens:
            text = self._header_text()
            channel, rest = _split_channel(text)
            words = _split_words(rest)
            if words[:1] == [self.role]:
                words = words[1:]
            message = Message(Author(self.role), (TextContent(" ".join(words)),), channel)
            self.messages.append(message)
        self.role = None
        self._header_tokens = []
        self.state = "ExpectStart"

    def _take_content(self, token: int) -> None:
        data = _library_bytes(self.encoding, token)
        if data is None or self._broken:
            self._broken = True
            return
        self._pending += data
        delta, self._pending = _decode_once(self._pending)
        if delta:
            self._content.append(delta)
            self.last_content_delta = delta

    def _close_content(self) -> None:
        assert self.header is not None
        text = self.current_content + "\ufffd" * self._broken
        text += self._pending.decode(errors="replace")
        header = self.header
        self.messages.append(
            Message(
                header.author,
                (TextContent(text),),
                header.channel,
                header.recipient,
                header.content_type,
            )
        )
        self.header, self.state = None, "ExpectStart"
        self._content, self._pending, self._broken = [], b"", False


def _library_bytes(encoding: tiktoken.Encoding, token: int) -> bytes | None:
    """Token bytes. The library has one more reserved token than tiktoken's o200k_harmony."""
    if token == 201088 and encoding.name == "o200k_harmony":
        return b"<|reserved_201088|>"
    return token_bytes(encoding, token)


def _decode_once(data: bytes) -> tuple[str, bytes]:
    """The valid prefix as text, with at most one replacement character, and the bytes left over."""
    try:
        return data.decode(), b""
    except UnicodeDecodeError as error:
        text = data[: error.start].decode()
        if error.reason == "unexpected end of data":
            return text, data[error.start :]
        return text + "\ufffd", data[error.end :]


def _split_channel(text: str) -> tuple[str | None, str]:
    """Remove the first channel marker and its value from a header; join the rest."""
    before, marker, after = text.partition(CHANNEL)
    if not marker:
        return None, text
    channel = _CHANNEL_VALUE.match(after)[0]  # type: ignore[index]
    if not channel:
        raise HarmonyError("channel marker present but no channel value found in header")
    return channel, before + after[len(channel) :]


def _split_words(text: str) -> list[str]:
    text = text.strip(_UNICODE_SPACE).replace(CONSTRAIN, f" {CONSTRAIN}")
    return [word for word in _ASCII_SPACES.split(text) if word]


def _escape(text: str) -> str:
    """`text` as Rust's `{:?}` prints it."""
    return "".join(_ESCAPES.get(c) or (c if _is_visible(c) else f"\\u{{{ord(c):x}}}") for c in text)


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}


# Spacing marks that nevertheless extend a character (Unicode's Other_Grapheme_Extend).
_EXTENDING = (
    "\u09be\u09d7\u0b3e\u0b57\u0bbe\u0bd7\u0cc2\u0cd5\u0cd6\u0d3e\u0d57\u0dcf\u0ddf"
    "\u302e\u302f\uff9e\uff9f"
)


def _is_visible(c: str) -> bool:
    extends = unicodedata.category(c) in ("Mn", "Me") or c in _EXTENDING
    return c.isprintable() and not extends


def parse_library_header(text: str, role: Role | None) -> LibraryHeader:
    """Read a header's text. `role` is the role that the caller gave, if it is still pending."""
    channel, rest = _split_channel(text)
    words = _split_words(rest)
    name = None
    if role is None:
        if not words:
            raise HarmonyError("message header did not contain a role")
        first = words.pop(0)
        if first in ROLES:
            role = cast(Role, first)
            name = "tool" if role == "tool" else None
        elif words or first.startswith("to="):
            role, name = "tool", first
        else:
            raise HarmonyError(f"Unknown role: {first}")
    if words[:1] == [role]:
        words.pop(0)
    recipient = content_type = None
    if words:
        last = words.pop()
        if last.startswith("to="):
            recipient = last.removeprefix("to=")
        elif not words:
            recipient = last
        else:
            recipient, content_type = words.pop().removeprefix("to="), last
    if words:
        raise HarmonyError(
            f'unexpected tokens remaining in message header: Some("{_escape(" ".join(words))}")'
        )
    return LibraryHeader(Author(role, name), channel, recipient, content_type)

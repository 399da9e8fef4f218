"""The message that is being read: its header, and its content as far as it is decoded.

A token may end inside a character. Its last bytes then wait for the next token. Bytes that are not
UTF-8 become U+FFFD, one per broken sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from oss_lab.harmony.event_log import EventLog
from oss_lab.harmony.events import Delta, Start
from oss_lab.harmony.events import DiagnosticKind as Kind
from oss_lab.harmony.header import HeaderFields
from oss_lab.harmony.messages import Message, TextContent

BROKEN = "\ufffd"


@dataclass(slots=True)
class OpenMessage:
    """A message whose content is being read. Its events go to `log`.

    Attributes:
        start: position of its first token.
        content_start: the first content token that no delta covers yet.
    """

    header: HeaderFields
    start: int
    content_start: int
    log: EventLog
    _ids: list[int] = field(default_factory=list)
    _texts: list[str] = field(default_factory=list)
    _waiting: bytes = b""  # of a character that is not complete yet

    @property
    def text(self) -> str:
        """The content so far (joined again on each access)."""
        return "".join(self._texts)

    def build_start(self) -> Start:
        """The event that begins the content."""
        header, tokens = self.header, (self.start, self.content_start)
        return Start(header.author, header.channel, header.recipient, header.content_type, tokens)

    def add_token(self, token: int, name: str | None, data: bytes | None, position: int) -> None:
        """Add a token of the content: its special name or None, its bytes or None if unknown."""
        self._ids.append(token)
        if name is not None:
            self.log.report(
                position, Kind.SPECIAL_IN_CONTENT, f"{name} inside a message; kept as text"
            )
            self.flush(position)
            self.add_text(name, position + 1)
        elif data is None:
            self.log.report(position, Kind.UNKNOWN_TOKEN, f"id {token} is not in the vocabulary")
            self.flush(position)
            self.add_text(BROKEN, position + 1)
        else:
            self.add_text(self._decode(data, position), position + 1)

    def add_text(self, text: str, end: int) -> None:
        """Add text whose tokens end before `end`."""
        if text:
            self._texts.append(text)
            tokens, header = (self.content_start, end), self.header
            self.log.add(Delta(text, header.channel, header.recipient, tokens))
            self.content_start = end

    def flush(self, position: int) -> None:
        """Replace an incomplete character by U+FFFD, in the delta and in the content."""
        if self._waiting:
            self.log.report(
                position, Kind.INVALID_UTF8, "an incomplete UTF-8 character; replaced by U+FFFD"
            )
            self._waiting = b""
            self.add_text(BROKEN, position)

    def build(self) -> Message:
        """The message with the content so far."""
        header, content = self.header, (TextContent(self.text, tuple(self._ids)),)
        return Message(
            header.author, content, header.channel, header.recipient, header.content_type
        )

    def _decode(self, data: bytes, position: int) -> str:
        """The text that `data` completes. An incomplete character waits for the next bytes."""
        data, text = self._waiting + data, ""
        self._waiting = b""
        while data:
            try:
                return text + data.decode()
            except UnicodeDecodeError as error:
                text += data[: error.start].decode()
                if error.reason == "unexpected end of data":
                    self._waiting = data[error.start :]
                    return text
                self.log.report(
                    position, Kind.INVALID_UTF8, "bytes that are not UTF-8; replaced by U+FFFD"
                )
                text += BROKEN
                data = data[error.end :]
        return text

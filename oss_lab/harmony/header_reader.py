"""Collect the tokens of a header, and read its fields once it is complete or broken off."""

from __future__ import annotations

from oss_lab.harmony.events import DiagnosticKind as Kind
from oss_lab.harmony.header import HeaderFields, Part, parse_header
from oss_lab.harmony.messages import CHANNELS, ROLES, Role
from oss_lab.harmony.specials import CHANNEL
from oss_lab.harmony.unfinished_header import has_recipient, split_unfinished

_LONGEST_CHANNEL = 16  # bytes after <|channel|> searched for a known channel name


class HeaderReader:
    """The header that starts at token `start`.

    Attributes:
        role: the author's role if it is already known, else None.
        channel: the channel, as soon as it is known to be one of Harmony's three.
    """

    def __init__(self, role: Role | None, start: int) -> None:
        self.role: Role | None = role
        self.start = start
        self.channel: str | None = None
        self._parts: list[tuple[str | None, bytearray]] = [(None, bytearray())]

    def add_text(self, data: bytes) -> None:
        """Add the bytes of an ordinary token."""
        marker, text = self._parts[-1]
        text.extend(data)
        if marker == CHANNEL:
            words = text[:_LONGEST_CHANNEL].decode(errors="replace").split(None, 1)
            self.channel = words[0] if words and words[0] in CHANNELS else None

    def add_marker(self, name: str) -> None:
        """Add `<|channel|>` or `<|constrain|>`."""
        self._parts.append((name, bytearray()))
        if name == CHANNEL:
            self.channel = None

    def is_only_role(self) -> bool:
        """Whether the header so far is exactly a role's name."""
        parts = self._decode_parts()
        return self.role is None and len(parts) == 1 and parts[0][1] in ROLES

    def read(self) -> HeaderFields:
        """The fields of a complete header."""
        return self._check_bytes(parse_header(self._decode_parts(), self.role))

    def recover(self, *, is_cut: bool) -> tuple[HeaderFields | None, str]:
        """The fields of a header without `<|message|>`, and the text after them.

        No fields if there is no message: nothing follows `<|start|>role`, or the stream was cut
        before the content.
        """
        parts, text = split_unfinished(self._decode_parts(), self.role)
        is_message = bool(text) or any(marker or words for marker, words in parts)
        if is_cut:
            is_message = len(text.split()) > 1 and not has_recipient(parts)  # else a cut field
        if not is_message:
            return None, ""
        return self._check_bytes(parse_header(parts, self.role)), text

    def _decode_parts(self) -> list[Part]:
        return [(marker, data.decode(errors="replace")) for marker, data in self._parts]

    def _check_bytes(self, header: HeaderFields) -> HeaderFields:
        for _, data in self._parts:
            try:
                data.decode()
            except UnicodeDecodeError:
                header.report(Kind.INVALID_UTF8, "bytes in the header that are not UTF-8")
                return header
        return header

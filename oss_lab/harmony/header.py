"""The header grammar: the text between `<|start|>` and `<|message|>`.

A header arrives as parts: the text before any special token, then one part for each `<|channel|>`
or `<|constrain|>` with the text after it. The parser recognizes special tokens by id, so text that
only looks like one stays text. Both layouts can be read; `to=` may appear anywhere:

    author [to=recipient] [<|channel|> channel [to=recipient] [type]] [<|constrain|> type]

An author is a role or `role:name`; anything else is a tool's name. Every header can be read;
whatever does not fit the grammar is reported as a problem. The fields of an assistant's header can
always be rendered and read again: a field for which this is not possible is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from oss_lab.harmony.events import DiagnosticKind as Kind
from oss_lab.harmony.messages import CHANNELS, ROLES, Author, Role
from oss_lab.harmony.specials import CHANNEL, CONSTRAIN

RECIPIENT = "to="
CONTENT_TYPES = ("json", "code", "text")  # read even without <|constrain|>
Part = tuple[str | None, str]  # the special token that opens it (None: first part), its text

_CHANNELS, _TYPES = "|".join(CHANNELS), "|".join(CONTENT_TYPES)
_GLUED_AUTHOR = re.compile(rf"(assistant|user|system|developer)({_CHANNELS})?(to=\S+)?")
_GLUED_CHANNEL = re.compile(rf"({_CHANNELS})(to=\S+|{_TYPES})")
_TYPE = re.compile(r"[A-Za-z][\w./+-]*")
_NAME = re.compile(r"[A-Za-z_][\w.-]*")
_DOTTED_NAME = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)+|python")
_BAD_DOTS = re.compile(r"^\.|\.\.|\.$")


@dataclass(slots=True)
class HeaderFields:
    """The fields of a header, and the problems found in it."""

    author: Author
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None
    problems: list[tuple[Kind, str]] = field(default_factory=list)

    def report(self, kind: Kind, message: str) -> None:
        self.problems.append((kind, message))

    def has(self, *kinds: Kind) -> bool:
        """Whether one of these problems was found."""
        return any(kind in kinds for kind, _ in self.problems)


def parse_header(parts: Sequence[Part], role: Role | None) -> HeaderFields:
    """Read a complete header. `role` is the author's role if the caller already knows it."""
    header, words = _read_author(parts[0][1] if parts else "", role)
    constraint: str | None = None
    for marker, text in parts[1:]:
        if marker == CHANNEL:
            words += _read_channel(header, text)
        elif constraint is None:
            constraint = text
        else:
            header.report(Kind.SPECIAL_IN_HEADER, f"a second {CONSTRAIN} in the header; skipped")
    words = _read_recipient(header, words)
    if words and header.channel is None and CHANNEL not in (marker for marker, _ in parts):
        words = _read_bare_channel(header, words)
    words = _read_bare_recipient(header, words, constraint is not None)
    if constraint is None:
        _check_recipient(header)  # first: only the header of a call may have any content type
        _read_type(header, words)
    else:
        _read_constraint(header, constraint, words)
        _check_recipient(header)
    if not header.problems and not _is_canonical(parts, role, header):
        header.report(Kind.MALFORMED_HEADER, "the header's spacing or order is not Harmony's")
    return header


def spell_header(header: HeaderFields, *, channel_first: bool) -> list[Part]:
    """The parts of a header as a renderer writes it."""
    name, role = header.author.name, header.author.role
    author = name or "" if role == "tool" else role if name is None else f"{role}:{name}"
    parts: list[Part] = [(None, author)]
    recipient = "" if header.recipient in (None, "all") else f" {RECIPIENT}{header.recipient}"

    def add(text: str) -> None:
        parts[-1] = (parts[-1][0], parts[-1][1] + text)

    if not channel_first:
        add(recipient)
    if header.channel is not None:
        parts.append((CHANNEL, header.channel))
    if channel_first:
        add(recipient)
    if header.content_type is not None:
        if header.content_type.startswith(CONSTRAIN):
            add(" ")
            parts.append((CONSTRAIN, header.content_type.removeprefix(CONSTRAIN)))
        else:
            add(f" {header.content_type}")
    return parts


def _is_canonical(parts: Sequence[Part], role: Role | None, header: HeaderFields) -> bool:
    """Whether these parts are one of the spellings of the header.

    The space before `<|constrain|>` may be missing: gpt-oss often omits it.
    """

    def compare(spelled: list[Part]) -> bool:
        if role is not None:
            spelled[0] = (None, spelled[0][1].removeprefix(role))
        return [(m, text.removesuffix(" ")) for m, text in spelled[:-1]] + spelled[-1:] == [
            *((m, text.removesuffix(" ")) for m, text in parts[:-1]),
            *parts[-1:],
        ]

    return any(compare(spell_header(header, channel_first=first)) for first in (True, False))


def _read_author(text: str, role: Role | None) -> tuple[HeaderFields, list[str]]:
    """The author, and the other words of the first part."""
    words = text.split()
    first = words[0] if words else ""
    glued = _GLUED_AUTHOR.fullmatch(first)
    if glued and glued[0] != glued[1] and role in (None, glued[1]):
        header = HeaderFields(Author(cast(Role, glued[1])))
        header.report(Kind.GLUED_HEADER, f"{first!r} has no separator; its fields are separated")
        return header, [*filter(None, glued.groups()[1:]), *words[1:]]
    if role is not None:
        header = HeaderFields(Author(role))
        if first == role:
            header.report(Kind.EXTRA_HEADER_WORDS, f"a second {role!r} in the header; skipped")
            return header, words[1:]
        return header, words
    if not words or first.startswith(RECIPIENT):
        header = HeaderFields(Author("assistant"))
        header.report(Kind.MISSING_ROLE, "the header has no role; the assistant is assumed")
        return header, words
    known, colon, name = first.partition(":")
    if known not in ROLES:
        known, name = "tool", first
    elif known == "tool":
        name = name or "tool"
    header = HeaderFields(Author(cast(Role, known), name or None))
    if "<|" in name or name in ROLES or (colon and not name):
        header.report(Kind.UNKNOWN_AUTHOR, f"{first!r} is not a name")
        if known != "tool":
            header.author = Author(cast(Role, known))
    return header, words[1:]


def _read_channel(header: HeaderFields, text: str) -> list[str]:
    """Set the channel; returns the words after its name."""
    words = text.split()
    if not words or words[0].startswith(RECIPIENT):
        header.report(Kind.EMPTY_CHANNEL, f"{CHANNEL} has no name after it")
        return words
    words = _separate_channel(header, words)
    if header.channel:
        header.report(
            Kind.DUPLICATE_CHANNEL,
            f"two channels, {header.channel!r} and {words[0]!r}; the last is used",
        )
    if "<|" in words[0]:
        header.report(Kind.UNKNOWN_CHANNEL, f"{words[0]!r} is not a channel; skipped")
    else:
        header.channel = words[0]
    return words[1:]


def _separate_channel(header: HeaderFields, words: list[str]) -> list[str]:
    """Split a first word such as `commentaryto=python` into its fields."""
    glued = _GLUED_CHANNEL.fullmatch(words[0])
    if not glued:
        return words
    header.report(Kind.GLUED_HEADER, f"{words[0]!r} has no separator; its fields are separated")
    return [*glued.groups(), *words[1:]]


def _read_bare_channel(header: HeaderFields, words: list[str]) -> list[str]:
    """Read a channel's name without `<|channel|>`; returns the words after it."""
    words = _separate_channel(header, words)
    if words[0] not in CHANNELS:
        return words
    header.channel = words[0]
    if not header.has(Kind.GLUED_HEADER):
        header.report(Kind.GLUED_HEADER, f"{words[0]!r} has no {CHANNEL}; read as the channel")
    return _read_recipient(header, words[1:])


def _read_recipient(header: HeaderFields, words: list[str]) -> list[str]:
    """Read `to=x` from the words; returns the other words."""
    others, is_waiting = [], False  # is_waiting: the word was only `to=`, the next is the name
    for word in words:
        if is_waiting and word not in CONTENT_TYPES:
            header.recipient, is_waiting = word, False
        elif not word.startswith(RECIPIENT):
            others.append(word)
        elif header.recipient:
            header.report(Kind.MALFORMED_RECIPIENT, f"a second recipient {word!r}; skipped")
        else:
            header.recipient = word.removeprefix(RECIPIENT)
            is_waiting = not header.recipient
            if is_waiting:
                header.report(Kind.MALFORMED_RECIPIENT, "`to=` has no name directly after it")
    return others


def _read_bare_recipient(header: HeaderFields, words: list[str], is_constrained: bool) -> list[str]:
    """Read a tool's name without `to=`; returns the other words."""
    if header.recipient or header.author.role != "assistant":
        return words
    pattern = _NAME if is_constrained and len(words) == 1 else _DOTTED_NAME
    for n, word in enumerate(words):
        if pattern.fullmatch(word) and word not in (*ROLES, *CHANNELS, *CONTENT_TYPES, "all"):
            header.recipient = word
            header.report(Kind.MALFORMED_RECIPIENT, f"{word!r} has no `to=`; read as the recipient")
            return words[:n] + words[n + 1 :]
    return words


def _check_recipient(header: HeaderFields) -> None:
    """Drop a recipient that is not a tool or cannot be read back."""
    name, is_call = header.recipient or "", header.author.role == "assistant"
    if name == "all" or (is_call and name in ROLES):
        header.report(Kind.RECIPIENT_NOT_A_TOOL, f"{name!r} is not a tool; dropped")
        name = ""
    elif "<|" in name or name.startswith(RECIPIENT):
        header.report(Kind.MALFORMED_RECIPIENT, f"{name!r} is not a tool's name; dropped")
        name = ""
    elif is_call and _BAD_DOTS.search(name):
        header.report(
            Kind.MALFORMED_RECIPIENT, f"{name!r} has a missing name before or after a dot"
        )
    header.recipient = name or None


def _read_type(header: HeaderFields, words: list[str]) -> None:
    """Read the content type from the words that are left over."""
    found = [word for word in words if word in CONTENT_TYPES][:1]
    rest = list(words)
    if found:
        header.content_type = found[0]
        rest.remove(found[0])
    elif len(words) == 1:
        is_word = _TYPE.fullmatch(words[0]) and words[0] not in (*ROLES, *CHANNELS)
        if is_word and header.recipient:
            header.content_type = words[0]
        else:
            kind = Kind.UNKNOWN_CONTENT_TYPE if is_word else Kind.MALFORMED_CONTENT_TYPE
            header.report(kind, f"{words[0]!r} is not a content type; dropped")
        return
    _report_extra(header, rest)


def _read_constraint(header: HeaderFields, text: str, words: list[str]) -> None:
    """Read the content type after `<|constrain|>`; `words` are those left over from other parts."""
    inner = _read_recipient(header, text.split())
    name = inner[0] if inner else ""
    if name and not _TYPE.fullmatch(name):
        header.report(Kind.MALFORMED_CONTENT_TYPE, f"{name!r} is not a content type; dropped")
    else:
        space = " " if name and text[0].isspace() else ""
        header.content_type = f"{CONSTRAIN}{space}{name}"
    _report_extra(header, words + inner[1:])


def _report_extra(header: HeaderFields, words: list[str]) -> None:
    if words:
        header.report(Kind.EXTRA_HEADER_WORDS, f"extra words {' '.join(words)!r}; dropped")

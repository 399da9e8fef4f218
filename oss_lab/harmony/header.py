"""The header grammar: the text between `<|start|>` and `<|message|>`.

A header arrives as parts: the text before any special token, then one part for each `<|channel|>`
or `<|constrain|>` with the text after it. The parser recognizes special tokens by id, so text that
only looks like one stays text. Both layouts can be read; `to=` may appear anywhere:

    author [to=recipient] [<|channel|> channel [to=recipient] [type]] [<|constrain|> type]

An author is a role or `role:name`; anything else is a tool's name. Every header can be read;
whatever does not fit the grammar is reported as a problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from oss_lab.harmony.events import DiagnosticKind as Kind
from oss_lab.harmony.messages import CHANNELS, ROLES, Author, Role
from oss_lab.harmony.specials import CHANNEL, CONSTRAIN

RECIPIENT = "to="
Part = tuple[str | None, str]  # the special token that opens it (None: first part), its text


@dataclass(slots=True)
class HeaderFields:
    """The fields of a header, and the problems found in it."""

    author: Author
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None
    problems: list[tuple[Kind, str]] = field(default_factory=list)


def parse_header(parts: Sequence[Part], role: Role | None) -> HeaderFields:
    """Read a complete header. `role` is the author's role if the caller already knows it."""
    author, words, missing = _read_author(parts[0][1] if parts else "", role)
    header = HeaderFields(author)
    if missing:
        header.problems.append(
            (Kind.MISSING_ROLE, "the header has no role; the assistant is assumed")
        )
    constraint: str | None = None
    for marker, text in parts[1:]:
        if marker == CHANNEL:
            words += _read_channel(header, text)
        elif constraint is None:
            constraint = text
        else:
            header.problems.append(
                (Kind.SPECIAL_IN_HEADER, f"a second {CONSTRAIN} in the header; skipped")
            )
    words = _read_recipient(header, words)
    if constraint is not None:
        _read_constraint(header, constraint, words)
    elif words:
        header.content_type = " ".join(words)
        _report_extra(header, words[1:])
    return header


def split_unfinished(parts: Sequence[Part], role: Role | None) -> tuple[list[Part], str]:
    """Split a header that never reached `<|message|>` into a header and the text after it.

    Each part keeps the one word it needs (and any `to=`); the rest is text, unchanged.
    """
    head, (marker, text) = list(parts[:-1]), parts[-1]
    keep = 0 if marker is None and role is not None and text.split()[:1] != [role] else 1
    kept, rest = [], text
    while rest.strip() and (len(kept) < keep or rest.split(None, 1)[0].startswith(RECIPIENT)):
        word, *tail = rest.split(None, 1)
        kept.append(word)
        rest = tail[0] if tail else ""
    return [*head, (marker, " ".join(kept))], rest.strip()


def _read_author(text: str, role: Role | None) -> tuple[Author, list[str], bool]:
    """The author, the other words of the first part, and whether the author was assumed."""
    words = text.split()
    if role is not None:
        return Author(role), words[1:] if words[:1] == [role] else words, False
    if not words or words[0].startswith(RECIPIENT):
        return Author("assistant"), words, True
    known, colon, name = words[0].partition(":")
    if known in ROLES and (colon or known != "tool"):
        return Author(cast(Role, known), name if colon else None), words[1:], False
    return Author("tool", words[0]), words[1:], False


def _read_channel(header: HeaderFields, text: str) -> list[str]:
    """Set the channel; returns the words after its name."""
    words = text.split()
    if not words or words[0].startswith(RECIPIENT):
        header.problems.append((Kind.EMPTY_CHANNEL, f"{CHANNEL} has no name after it"))
        header.channel = header.channel or ""
        return words
    if header.channel:
        header.problems.append(
            (
                Kind.DUPLICATE_CHANNEL,
                f"two channels, {header.channel!r} and {words[0]!r}; the last is used",
            )
        )
    header.channel = words[0]
    if words[0] not in CHANNELS:
        header.problems.append((Kind.UNKNOWN_CHANNEL, f"unknown channel {words[0]!r}"))
    return words[1:]


def _read_recipient(header: HeaderFields, words: list[str]) -> list[str]:
    """Read `to=x` from the words; returns the other words."""
    others, waiting = [], False  # waiting: the word was only `to=`, the next is the name
    for word in words:
        if waiting:
            header.recipient, waiting = word, False
        elif header.recipient is None and word.startswith(RECIPIENT):
            header.recipient = word.removeprefix(RECIPIENT)
            waiting = not header.recipient
            if waiting:
                header.problems.append(
                    (Kind.MALFORMED_RECIPIENT, "`to=` has no name directly after it")
                )
        else:
            others.append(word)
    return others


def _read_constraint(header: HeaderFields, text: str, words: list[str]) -> None:
    """Read the content type after `<|constrain|>`; `words` are those left over from other parts."""
    inner = text.split()
    if header.recipient is None and any(word.startswith(RECIPIENT) for word in inner):
        inner = _read_recipient(header, inner)
        text = " ".join(inner)
    header.content_type = CONSTRAIN + text.rstrip()
    if header.recipient is None and len(words) == 1:
        header.recipient = words.pop()
        header.problems.append(
            (Kind.MALFORMED_RECIPIENT, f"{header.recipient!r} has no `to=`; read as the recipient")
        )
    _report_extra(header, words + inner[1:])


def _report_extra(header: HeaderFields, words: list[str]) -> None:
    if words:
        header.problems.append((Kind.EXTRA_HEADER_WORDS, f"extra words {' '.join(words)!r}"))

"""The header grammar: what stands between `<|start|>` and `<|message|>`.

A header arrives as parts: the text before any special token, then one part for each `<|channel|>`
or `<|constrain|>` with the text behind it. Special tokens were told apart by id, so a name that
only looks like one is a name. Both layouts are read; `to=` may stand anywhere:

    author [to=recipient] [<|channel|> channel [to=recipient] [type]] [<|constrain|> type]

An author is a role, `role:name`, or else a tool's name. Anything can be read; what does not fit the
grammar is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from oss_lab.harmony.events import DiagnosticKind as Kind
from oss_lab.harmony.messages import CHANNELS, ROLES, Author, Role
from oss_lab.harmony.specials import CHANNEL, CONSTRAIN

RECIPIENT = "to="
Part = tuple[str | None, str]  # the special token that opens it (None: the first), its text


@dataclass(slots=True)
class HeaderFields:
    """What a header says, and what is wrong with it."""

    author: Author
    channel: str | None = None
    recipient: str | None = None
    content_type: str | None = None
    problems: list[tuple[Kind, str]] = field(default_factory=list)


def read_header(parts: Sequence[Part], role: Role | None) -> HeaderFields:
    """Read a complete header; `role` is the author's if it was given from outside."""
    author, words, missing = _author(parts[0][1] if parts else "", role)
    header = HeaderFields(author)
    if missing:
        header.problems.append((Kind.MISSING_ROLE, "no role; taken to be the assistant"))
    constraint: str | None = None
    for marker, text in parts[1:]:
        if marker == CHANNEL:
            words += _read_channel(header, text)
        elif constraint is None:
            constraint = text
        else:
            header.problems.append((Kind.SPECIAL_IN_HEADER, f"a second {CONSTRAIN}"))
    words = _read_recipient(header, words)
    if constraint is not None:
        _read_constraint(header, constraint, words)
    elif words:
        header.content_type = " ".join(words)
        _report_extra(header, words[1:])
    return header


def split_unfinished(parts: Sequence[Part], role: Role | None) -> tuple[list[Part], str]:
    """Cut a header that never came to `<|message|>` into a header and the text behind it.

    Each part keeps the one word it needs (and a `to=`) and the rest is text, as it stands.
    """
    head, (marker, text) = list(parts[:-1]), parts[-1]
    keep = 0 if marker is None and role is not None and text.split()[:1] != [role] else 1
    kept, rest = [], text
    while rest.strip() and (len(kept) < keep or rest.split(None, 1)[0].startswith(RECIPIENT)):
        word, *tail = rest.split(None, 1)
        kept.append(word)
        rest = tail[0] if tail else ""
    return [*head, (marker, " ".join(kept))], rest.strip()


def _author(text: str, role: Role | None) -> tuple[Author, list[str], bool]:
    """The author, the other words of the first part, and whether the author had to be assumed."""
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
    """Set the channel; returns the words behind its name."""
    words = text.split()
    if not words or words[0].startswith(RECIPIENT):
        header.problems.append((Kind.EMPTY_CHANNEL, f"{CHANNEL} without a name"))
        header.channel = header.channel or ""
        return words
    if header.channel:
        header.problems.append(
            (Kind.DUPLICATE_CHANNEL, f"channel {header.channel!r}, then {words[0]!r}, which holds")
        )
    header.channel = words[0]
    if words[0] not in CHANNELS:
        header.problems.append((Kind.UNKNOWN_CHANNEL, f"channel {words[0]!r}"))
    return words[1:]


def _read_recipient(header: HeaderFields, words: list[str]) -> list[str]:
    """Take `to=x` out of the words; returns the others."""
    others, waiting = [], False  # waiting: `to=` stood alone, its name comes next
    for word in words:
        if waiting:
            header.recipient, waiting = word, False
        elif header.recipient is None and word.startswith(RECIPIENT):
            header.recipient = word.removeprefix(RECIPIENT)
            waiting = not header.recipient
            if waiting:
                header.problems.append((Kind.MALFORMED_RECIPIENT, "`to=` without a name"))
        else:
            others.append(word)
    return others


def _read_constraint(header: HeaderFields, text: str, words: list[str]) -> None:
    """Content type behind `<|constrain|>`, kept as it stands; `words` have no place left."""
    inner = text.split()
    if header.recipient is None and any(word.startswith(RECIPIENT) for word in inner):
        inner = _read_recipient(header, inner)
        text = " ".join(inner)
    header.content_type = CONSTRAIN + text.rstrip()
    if header.recipient is None and len(words) == 1:
        header.recipient = words.pop()
        header.problems.append(
            (Kind.MALFORMED_RECIPIENT, f"{header.recipient!r} without `to=`, read as recipient")
        )
    _report_extra(header, words + inner[1:])


def _report_extra(header: HeaderFields, words: list[str]) -> None:
    if words:
        header.problems.append((Kind.EXTRA_HEADER_WORDS, f"{' '.join(words)!r} has no place"))

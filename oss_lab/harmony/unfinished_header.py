"""Recover a header that never reached `<|message|>`: separate its fields from the text after them.

gpt-oss sometimes omits `<|message|>`, and max_tokens may cut a header anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from oss_lab.harmony.header import CONTENT_TYPES, RECIPIENT, Part
from oss_lab.harmony.messages import Role
from oss_lab.harmony.specials import CONSTRAIN

_TYPE = re.compile(rf"({'|'.join(CONTENT_TYPES)})(?!\w)")
_CONSTRAINED_TYPE = re.compile(r"\s*[A-Za-z][\w./+-]*")
_FUNCTION = re.compile(r"functions\.[\w.-]+(?!\S)")


def split_unfinished(parts: Sequence[Part], role: Role | None) -> tuple[list[Part], str]:
    """Split a header that never reached `<|message|>` into a header and the text after it.

    Each part keeps the one word it needs, and the words of a call: `to=` and the content type.
    """
    head, (marker, text) = list(parts[:-1]), parts[-1]
    if marker == CONSTRAIN:
        found = _CONSTRAINED_TYPE.match(text)
        kept, rest = [found[0]] if found else [], text[found.end() if found else 0 :]
    else:
        keep = 0 if marker is None and role is not None and text.split()[:1] != [role] else 1
        kept, rest = _take_words(text, keep)
    if has_recipient([*head, (marker, " ".join(kept))]) and marker != CONSTRAIN:
        found = _TYPE.match(rest)
        if found:
            kept, rest = [*kept, found[0]], rest[found.end() :]
    return [*head, (marker, " ".join(kept))], rest.strip()


def _take_words(text: str, keep: int) -> tuple[list[str], str]:
    """The first `keep` words and the words that name a recipient, and the text after them."""
    kept, rest = list[str](), text
    while rest.strip():
        word, *tail = rest.split(None, 1)
        named = any(map(is_recipient, kept))
        if len(kept) >= keep and (named or not is_recipient(word)):
            break
        kept.append(word)
        rest = tail[0] if tail else ""
    return kept, rest.lstrip()


def is_recipient(word: str) -> bool:
    """Whether a word of a header names a recipient."""
    return word.startswith(RECIPIENT) or _FUNCTION.fullmatch(word) is not None


def has_recipient(parts: Sequence[Part]) -> bool:
    """Whether a word of these parts names a recipient."""
    return any(is_recipient(word) for _, text in parts for word in text.split())

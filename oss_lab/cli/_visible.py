"""Spells out characters that a terminal would obey or hide, such as ESC and U+202E.

Escaped are control characters, bidirectional controls, and characters without a width. Three kinds
of invisible character belong to ordinary text and are kept, one after each character:

- joiners (U+200C and U+200D) after a letter of a script that uses them, such as Arabic (Persian) or
  Devanagari; U+200D also after an emoji, as in 👩‍🔬
- U+FE0E and U+FE0F after an emoji or another symbol, and after the keycap characters
- variation selectors after a Chinese or Mongolian character

Tag characters are always escaped, also in the flags of England, Scotland and Wales.
"""

import unicodedata
from itertools import pairwise

JOINERS, EMOJI_SELECTORS = frozenset("\u200c\u200d"), frozenset("\ufe0e\ufe0f")
JOINING_SCRIPTS = (
    "ARABIC", "SYRIAC", "MONGOLIAN", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA",
    "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "KHMER", "MYANMAR",
)  # fmt: skip
KEYCAPS = frozenset("0123456789#*‼⁉")
VISIBLE_FORMATS = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2")
"""Number signs and the like: in Unicode's category of format characters, but drawn."""
INVISIBLE_MARKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2028\u2029\u3164\uffa0")
"""Invisible characters outside of that category."""


def escape_controls(text: str, encoding: str = "utf-8", before: str = "\n") -> str:
    """Escape control and invisible characters, and what `encoding` cannot write.

    Newline and tab are kept. `before` is the character that is already shown before the text.

    >>> escape_controls("a\\x1b[31m, b\\u202e")
    'a\\\\x1b[31m, b\\\\u202e'
    """
    shown = "".join(
        c if is_shown(c, previous) else spell(c) for previous, c in pairwise([before, *text])
    )
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def spell(character: str) -> str:
    """A character as in a Python string: `\\x1b`, `\\u202e`."""
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else character.encode("unicode_escape").decode()


def is_shown(character: str, previous: str) -> bool:
    """Whether a terminal shows this character, or it belongs to the one before it."""
    category = unicodedata.category(character)
    name = unicodedata.name(previous, "")
    if character in JOINERS:
        is_joined = name.startswith(JOINING_SCRIPTS)
        return is_joined or (character == "\u200d" and is_emoji(previous))
    if is_selector(character):
        if character in EMOJI_SELECTORS and (is_symbol(previous) or previous in KEYCAPS):
            return True
        return name.startswith(("CJK", "MONGOLIAN"))
    if "\U000e0000" <= character <= "\U000e0fff":  # tags, and numbers reserved for their like
        return False
    if category == "Cc":
        return character in "\n\t"
    return character not in INVISIBLE_MARKS and (category != "Cf" or character in VISIBLE_FORMATS)


def is_symbol(character: str) -> bool:
    """Whether this is a pictograph or another symbol beyond ASCII, such as © or ↔."""
    return character > "\xa0" and unicodedata.category(character) in ("So", "Sm")


def is_emoji(character: str) -> bool:
    """Whether an emoji can end with this: a symbol, a skin tone or an emoji's selector."""
    is_tone = "\U0001f3fb" <= character <= "\U0001f3ff"
    return is_symbol(character) or is_tone or character == "\ufe0f"


def is_selector(character: str) -> bool:
    """Whether this is one of Unicode's variation selectors."""
    bounds = (("\u180b", "\u180f"), ("\ufe00", "\ufe0f"), ("\U000e0100", "\U000e01ef"))
    return any(first <= character <= last for first, last in bounds)

"""Characters that a terminal would obey or hide are spelled out (case A19)."""

import io

import pytest

from oss_lab.cli._transcript import Transcript
from oss_lab.cli._visible import escape_controls
from oss_lab.harmony import Author, Delta, Start

HIDDEN = [
    *map(chr, range(0x202A, 0x202F)),
    *map(chr, range(0x2066, 0x206A)),
    *map(chr, range(0x200B, 0x2010)),
    *map(chr, range(0x2060, 0x2065)),
    *map(chr, range(0xE0000, 0xE0080)),
    *map(chr, range(0xFE00, 0xFE10)),
    *"\u00ad\u034f\u061c\u115f\u1160\u17b4\u180b\u180e\u2028\u2029\u206a\u3164\ufeff\uffa0\ufff9",
    *"\U000e0100\U000e01ef\U000e0fff\U0001d173",
]
KEPT = [
    "👩‍🔬 👨🏽‍🚀 ❤️‍🔥 🏳️‍🌈 👁️‍🗨️",  # joined emoji, with skin tones and selectors
    "1️⃣ ©️ ↔︎ ☎︎",
    "می‌خواهم نامه‌ای",  # Persian
    "क्‍ष न्‍ ක්‍ෂ র‍্য",  # Devanagari, Sinhala, Bengali
    "葛󠄀飾区",  # a variant of a Chinese character
    "ᠠ᠋ᠨ",  # Mongolian
    "café naïve e\u0301 ۝ 你好\n\ttab",
]


@pytest.mark.parametrize("character", HIDDEN, ids=lambda c: f"U+{ord(c):04X}")
def test_a19_hidden_characters_are_spelled_out(character):
    shown = escape_controls(f"a{character}b")
    assert character not in shown
    assert shown == f"a{character.encode('unicode_escape').decode()}b"


@pytest.mark.parametrize("text", KEPT)
def test_a19_ordinary_text_is_unchanged(text):
    assert escape_controls(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u200db", "a\\u200db"),  # Latin has no joiners
        ("می\u200c\u200cخ", "می\u200c\\u200cخ"),  # one is enough
        ("😀\u200c", "😀\\u200c"),
        ("😀\ufe0f\ufe0f", "😀\ufe0f\\ufe0f"),
        ("😀\U000e0101", "😀\\U000e0101"),  # hidden data after an emoji
        ("葛\U000e0100\U000e0100", "葛\U000e0100\\U000e0100"),
        ("\u202e", "\\u202e"),
        ("\ufe0f", "\\ufe0f"),
        ("🏴\U000e0067", "🏴\\U000e0067"),  # tags, even in a flag
    ],
)
def test_a19_what_belongs_to_no_character_is_spelled_out(text, shown):
    assert escape_controls(text) == shown


def test_a19_an_emoji_may_come_in_pieces():
    """Its bytes are several tokens, so its joiner can be the beginning of a delta."""
    out = io.StringIO()
    transcript = Transcript(out)
    transcript.show_event(Start(Author("assistant"), "final", None, None, (0, 1)))
    for piece in ("👩", "\u200d", "🔬 a", "\u200d"):
        transcript.show_event(Delta(piece, "final", None, (1, 2)))
    assert out.getvalue() == "[final]\n👩\u200d🔬 a\\u200d"


def test_a19_labels_and_notes_are_spelled_out_too():
    out = io.StringIO()
    transcript = Transcript(out)
    transcript.show_event(Start(Author("assistant"), "fi\u202enal", "f\u200b", None, (0, 1)))
    transcript.write_note("a\u2066b")
    assert out.getvalue() == "[fi\\u202enal to f\\u200b]\n(a\\u2066b)\n"

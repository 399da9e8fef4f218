"""The text of a token in a figure: every character visible, and no markup.

A newline is shown as ↵, a space as ␣, other invisible characters by their code point.
`plotly_text` keeps plotly from reading a token as markup or mathematics.
"""

import unicodedata

LONGEST = 24  # characters of a token that are shown
SYMBOLS = {"\n": "↵", "\r": "␍", "\t": "⇥", " ": "␣"}
PLOTLY_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;"})


def make_visible(text: str) -> str:
    """The text with each invisible character made visible, shortened in its middle."""
    shown = "".join(map(_visible_character, text))
    if len(shown) <= LONGEST:
        return shown
    return f"{shown[: LONGEST // 2]}…{shown[-(LONGEST // 2 - 1) :]}"


def plotly_text(text: str) -> str:
    """Text that plotly shows unchanged: no tags, entities or $mathematics$."""
    return text.translate(PLOTLY_ENTITIES)


def _visible_character(character: str) -> str:
    if character in SYMBOLS:
        return SYMBOLS[character]
    if unicodedata.category(character)[0] in "CZ":  # control, format, other spaces, unassigned
        return f"U+{ord(character):04X}"
    return character

"""Decide whether a final answer is right: by its text, last number, boxed number or letter.

A number is a run of digits with an optional sign, decimal point, exponent or denominator. Thousands
may be separated by commas, LaTeX's `{,}` and `\\,`, or narrow and no-break spaces. Numbers are
compared exactly, as fractions. Units, percentages, decimal commas and arithmetic are not supported.
A reply that names several letters without choosing one is wrong.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

LONGEST_NUMBER = 400  # characters; a model may repeat digits forever
LARGEST_EXPONENT = 999
NUMBER = re.compile(
    r"""
    (?<![A-Za-z0-9_]) (?<![0-9]\.)             # not within a word or after a decimal point
    (?P<sign> (?<![)\]}])[+-] )?               # `x-5` subtracts, `= -5` is negative
    (?P<whole> [0-9]{1,3}(?:,[0-9]{3})+(?![0-9]) | [0-9]+ | (?<!\.)(?=\.[0-9]) )
    (?P<rest> (?:\.[0-9]+)? (?: [eE][+-]?(?P<exponent>[0-9]+) )? )
    (?: /(?P<denominator> [0-9]++ ) (?!/) )?       # 5/2 is a number, 5/2/1 is not
    """,
    re.VERBOSE,
)
THOUSANDS = re.compile(r"(?<=[0-9])(?:\{,\}|\\,|[\u00a0\u2009\u202f])(?=[0-9]{3}(?![0-9]))")
FORMULA = re.compile(r"\\(?:[dt]?frac|sqrt|pi)|\^(?!\s*\{?\s*\\circ)")  # not a whole number
BOX = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")

SPACES = re.compile(r"\s{2,}")
UNDERSCORES = re.compile(r"_{2,}")
DRESS = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}|[*`$]|(?<!\w)_+|_+(?!\w)")
BARE = re.compile(r"[(\[]?\s*([A-Da-d])\s*[)\].:]?")
BOXED_LETTER = re.compile(r"\s*[(\[]?([A-D])(?![\w'])")
HEDGED = r"(?!\s*[)\]]?\s*(?:,|/|\bor\b|\band\b|&)\s*[(\[]?[A-D]\b)"
ANSWER = re.compile(
    rf"\b(?i:answers?)\b(?i:\s+is)?\s*[:\-–—=]?\s*(?i:(?:option|choice)\s+)?"
    rf"[(\[]?([A-D])(?![\w']){HEDGED}"
)
LETTER_LINE = re.compile(r"^\s*[(\[]?([A-D])(?:[)\].:].*)?\s*$", re.MULTILINE)
LETTER_ASIDE = re.compile(r"(?<!\w)[(\[]([A-D])[)\]]|\b(?i:option|choice)\s+([A-D])(?![\w'])")


def shorten_spaces(spaces: re.Match[str]) -> str:
    """Shorten white space to one character: a line break if it has one, else a space."""
    return "\n" if "\n" in spaces[0] else " "


class Answer(Protocol):
    """The expected answer. Its repr must contain everything that `accepts` depends on."""

    def accepts(self, final: str) -> bool:
        """Whether this final answer is right."""
        ...


@dataclass(frozen=True)
class WrittenAnswer:
    """Accepts the same text or, if `text` is a number, a reply whose last number is equal to it.

    >>> WrittenAnswer("1234").accepts("It is 1,234.")
    True
    """

    text: str

    def accepts(self, final: str) -> bool:
        if final.strip() == self.text.strip():
            return True
        number = parse_number(self.text)
        return number is not None and find_last_number(final) == number


@dataclass(frozen=True)
class Boxed:
    r"""A number in the last non-empty `\boxed{...}`, or the last number if there is no box.

    >>> Boxed(42).accepts(r"\boxed{042} in 3 steps")
    True
    """

    value: int

    def accepts(self, final: str) -> bool:
        boxes = [box for box in BOX.findall(final) if box.strip()]
        if boxes and FORMULA.search(boxes[-1]):
            return False
        return find_last_number(boxes[-1] if boxes else final) == self.value


@dataclass(frozen=True)
class Choice:
    """One of the letters A to D, with or without brackets, bold type and the like.

    >>> Choice("B").accepts("**Answer: (B)**, since A is false")
    True
    """

    letter: str

    def accepts(self, final: str) -> bool:
        return find_chosen_letter(final) == self.letter


def find_last_number(text: str) -> Fraction | None:
    """The last number in a text; None if there is none or it has no value (x/0, too long)."""
    found = list(NUMBER.finditer(normalize_number_text(text)))
    return parse_match(found[-1]) if found else None


def parse_number(text: str) -> Fraction | None:
    """The value of a text that is only a number, else None."""
    match = NUMBER.fullmatch(normalize_number_text(text.strip()))
    return parse_match(match) if match else None


def normalize_number_text(text: str) -> str:
    """Normalize minus signs to ASCII, and separators of thousands to commas."""
    return THOUSANDS.sub(",", text.replace("\u2212", "-"))


def parse_match(match: re.Match[str]) -> Fraction | None:
    """The value of a match of NUMBER; None for x/0 and for numbers that are too long or large."""
    if len(match[0]) > LONGEST_NUMBER or int(match["exponent"] or 0) > LARGEST_EXPONENT:
        return None
    digits = match["whole"].replace(",", "") or "0"
    denominator = int(match["denominator"] or 1)
    if denominator == 0:
        return None
    return Fraction((match["sign"] or "") + digits + match["rest"]) / denominator


def find_chosen_letter(text: str) -> str | None:
    """The letter A to D that a reply chooses, or None.

    Rules are tried in this order: the text is only a letter; the last box; the last `Answer: X`;
    a line that starts with a letter; a letter in brackets or after "option". If one of the last two
    rules finds different letters, the result is None.
    """
    text = SPACES.sub(shorten_spaces, UNDERSCORES.sub("_", text))
    text = DRESS.sub(lambda match: match[1] or "", text).strip()
    if bare := BARE.fullmatch(text):
        return bare[1].upper()
    boxed = [match[1] for box in BOX.findall(text) if (match := BOXED_LETTER.match(box))]
    if letters := boxed or ANSWER.findall(text):
        return letters[-1]
    for pattern in (LETTER_LINE, LETTER_ASIDE):
        named = {next(filter(None, match.groups())) for match in pattern.finditer(text)}
        if named:
            return named.pop() if len(named) == 1 else None
    return None

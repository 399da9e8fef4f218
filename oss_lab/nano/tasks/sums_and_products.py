"""Products of up to three by two digits, sums of two to six terms, and longer numbers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from oss_lab.nano.tasks.arithmetic import by_effort, write_sum_thoughts
from oss_lab.nano.tasks.problem import Problem, Split, belongs_to
from oss_lab.nano.tasks.product_steps import write_product_thoughts

ENGLISH = ("What is {}?", "What is {}?", "What is {}?", "Compute {}.", "{} = ?", "{}",
           "How much is {}?", "Work out {}.")  # fmt: skip
CHINESE = ("{}等于多少？", "计算{}。")
UNSEEN_WORDINGS = ("Find {}.", "Tell me {}.", "{} is what?", "Please calculate {} for me.")
CHINESE_SHARE = 0.07
SEATS = "There are {} rows of {} seats. How many seats?"
TOO_HARD = "That is too hard for me without a calculator."
LONG_SHAPES = (
    *(("*", lengths) for lengths in ((3, 3), (4, 1), (4, 2), (4, 3), (5, 2), (6, 4))),
    *(("+", lengths) for lengths in ((5, 2), (5, 5), (6, 3), (7, 4))),
)
SPOKEN = {
    "en": {
        "*": ("*", "*", "*", "x", "times"),
        "+": ("+", "+", "+", "plus"),
        "-": ("-", "-", "minus"),
    },
    "zh": {"*": ("乘", "乘以", "*"), "+": ("加", "+"), "-": ("减", "-")},
}


@dataclass(frozen=True)
class Products:
    """a * b; `lengths` fixes the number of digits, `wordings` the sentences."""

    lengths: tuple[int, int] | None = None
    wordings: tuple[str, ...] = ()
    name: str = "product"

    def draw(self, rng: Random, split: Split) -> Problem:
        shapes = [(3, 2)] * 5 + [(3, 1)] * 3 + [(2, 2)] * 3 + [(2, 1), (1, 1)]
        lengths = self.lengths or rng.choice(shapes)
        while True:
            a, b = (draw_number(rng, n) for n in lengths)
            if belongs_to(split, *product_key(a, b)):
                break
        long, short = (a, b) if len(str(a)) >= len(str(b)) else (b, a)
        if self.lengths is None and rng.random() < 0.2:
            a, b = b, a
        question = word_question(rng, [a, b], ["*"], self.wordings)
        if not self.wordings and rng.random() < 0.05 and min(a, b) > 1:
            question = SEATS.format(a, b)
        value = str(a * b)
        return Problem(
            self.name, question, value, write_product_thoughts(long, short), f"{a}*{b}", value
        )


@dataclass(frozen=True)
class Sums:
    """Two to six terms with + and -. Only with two terms can the total be negative.

    Attributes:
        terms: fixes the number of terms.
        digits: fixes the number of digits of each term.
        signs: "+" for only sums, "-" for only differences.
    """

    terms: int | None = None
    digits: int | None = None
    signs: str = "+-"
    name: str = "sum"

    def draw(self, rng: Random, split: Split) -> Problem:
        count = self.terms or rng.choice([2, 2, 2, 2, 3, 3, 4, 5, 6])
        while True:
            terms = self._terms(rng, count)
            if belongs_to(split, *sum_key(terms)):
                break
        signs = ["+" if term >= 0 else "-" for term in terms[1:]]
        plain = [abs(term) for term in terms]
        value = str(sum(terms))
        expression = str(plain[0]) + "".join(
            f"{sign}{term}" for sign, term in zip(signs, plain[1:], strict=True)
        )
        question = word_question(rng, plain, signs)
        return Problem(self.name, question, value, write_sum_thoughts(terms), expression, value)

    def _terms(self, rng: Random, count: int) -> list[int]:
        longest = 4 if count == 2 else 3 if count == 3 else 2
        total, terms = 0, list[int]()
        for n in range(count):
            term = draw_number(rng, self.digits or rng.randint(1, longest))
            sign = "+" if n == 0 else rng.choice(self.signs)
            if sign == "-" and term == 0:
                term = 1
            if sign == "-" and total < term and (count > 2 or rng.random() < 0.7):
                if count == 2:
                    terms[0], term = term, total
                elif "+" in self.signs:
                    sign = "+"
                else:
                    return self._terms(rng, count)
            if sign == "-" and term == 0:
                return self._terms(rng, count)
            terms.append(term if sign == "+" else -term)
            total = sum(terms)
        return terms


@dataclass(frozen=True)
class TooLong:
    """Numbers longer than nano learned: too hard without a calculator, easy with one."""

    name: str = "too long"

    def draw(self, rng: Random, split: Split) -> Problem:
        while True:
            sign, lengths = rng.choice(LONG_SHAPES)
            numbers = [draw_number(rng, n) if n > 1 else rng.randint(2, 9) for n in lengths]
            rng.shuffle(numbers)
            a, b = numbers
            key = product_key(a, b) if sign == "*" else sum_key([a, b])
            if belongs_to(split, *key):
                break
        value = str(a * b if sign == "*" else a + b)
        thoughts = by_effort("", "Too long for me.", f"{a}{sign}{b} is too long for me.")
        question = word_question(rng, [a, b], [sign])
        return Problem(self.name, question, TOO_HARD, thoughts, f"{a}{sign}{b}", value)


def product_key(a: int, b: int) -> tuple[object, ...]:
    """The key that decides whether a product is held out; the same for a * b and b * a."""
    return "*", max(a, b), min(a, b)


def sum_key(terms: Sequence[int]) -> tuple[object, ...]:
    """The key that decides whether a sum of signed terms is held out; the same for any order."""
    return "+", *sorted(terms)


def expression_key(expression: str) -> tuple[object, ...]:
    """The key of a product of two factors or of a sum, given as the input for a calculator."""
    if "*" in expression:
        a, b = map(int, expression.split("*"))
        return product_key(a, b)
    return sum_key([int(term) for term in re.findall(r"[+-]?\d+", expression)])


def draw_number(rng: Random, length: int) -> int:
    """A number with this many digits, drawn uniformly."""
    return rng.randrange(10 ** (length - 1) if length > 1 else 0, 10**length)


def word_question(
    rng: Random, terms: list[int], signs: list[str], wordings: tuple[str, ...] = ()
) -> str:
    """Numbers and signs as a question, sometimes in Chinese."""
    language = "zh" if not wordings and rng.random() < CHINESE_SHARE else "en"
    space = "" if language == "zh" else " "
    words = [str(terms[0])]
    for sign, term in zip(signs, terms[1:], strict=True):
        words += [rng.choice(SPOKEN[language][sign]), str(term)]
    sentences = wordings or (CHINESE if language == "zh" else ENGLISH)
    return rng.choice(sentences).format(space.join(words))

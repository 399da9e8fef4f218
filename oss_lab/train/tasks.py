"""What nano learns: products, sums, and to say honestly when a question is neither.

A task draws problems; a problem carries its question, its answer and the chain of thought for each
effort. Operand pairs are split by a hash, so that no held-out pair (in either order) is ever
trained on; questions out of reach are split by their templates and words.
"""

import hashlib
from dataclasses import dataclass
from random import Random
from typing import Literal, Protocol

from oss_lab.harmony.messages import EFFORTS, Effort
from oss_lab.train.arithmetic import product_trace, sum_trace
from oss_lab.train.questions import out_of_reach_question

Split = Literal["train", "held_out"]
HELD_OUT_SHARE = 10  # one pair in ten

ARITHMETIC_WORDINGS = ("What is {}?", "What is {}?", "What is {}?", "Compute {}.", "{} = ?", "{}")
ABILITIES = (
    "It knows products of up to three by two digits and sums of up to four digits, asked as"
    " `What is 347 * 62?` or `12 + 35`; of anything else it says that it cannot."
)
"""What nano can do, in words for people; `oss-lab chat` shows them."""
REFUSAL = "I only know products and sums of small whole numbers."
REFUSAL_THOUGHT = "Not a product or a sum that I know."


@dataclass(frozen=True)
class Problem:
    """One question, the final answer, and what is thought at each effort ("" = no analysis)."""

    task: str
    question: str
    answer: str
    thoughts: dict[Effort, str]


class Task(Protocol):
    """Draws problems of one kind."""

    @property
    def name(self) -> str: ...

    def draw(self, rng: Random, split: Split) -> Problem: ...


def is_held_out(*key: object) -> bool:
    digest = hashlib.sha256(repr(key).encode()).digest()
    return digest[0] % HELD_OUT_SHARE == 0


def draw_pair(
    rng: Random, split: Split, operation: str, lengths: tuple[int, int]
) -> tuple[int, int]:
    """Two numbers with these many digits whose pair belongs to the split."""
    while True:
        a, b = (rng.randrange(10 ** (n - 1) if n > 1 else 0, 10**n) for n in lengths)
        if is_held_out(operation, max(a, b), min(a, b)) == (split == "held_out"):
            return a, b


@dataclass(frozen=True)
class Products:
    """a * b with up to three by up to two digits; `lengths` fixes the digits."""

    lengths: tuple[int, int] | None = None
    name: str = "product"

    def draw(self, rng: Random, split: Split) -> Problem:
        shapes = [(3, 2)] * 6 + [(3, 1), (2, 2), (2, 2), (2, 1), (1, 1)]
        a, b = draw_pair(rng, split, "*", self.lengths or rng.choice(shapes))
        long, short = (a, b) if len(str(a)) >= len(str(b)) else (b, a)
        thoughts: dict[Effort, str] = {
            effort: product_trace(long, short, effort) for effort in EFFORTS
        }
        if self.lengths is None and rng.random() < 0.2:
            a, b = b, a
        sign = rng.choice(["*", "*", "*", "x", "times"])
        return Problem(self.name, word(rng, f"{a} {sign} {b}"), str(a * b), thoughts)


@dataclass(frozen=True)
class Sums:
    """a + b with up to four digits each; `lengths` fixes the digits."""

    lengths: tuple[int, int] | None = None
    name: str = "sum"

    def draw(self, rng: Random, split: Split) -> Problem:
        a, b = draw_pair(rng, split, "+", self.lengths or (rng.randint(1, 4), rng.randint(1, 4)))
        thoughts: dict[Effort, str] = {effort: sum_trace(a, b, effort) for effort in EFFORTS}
        sign = rng.choice(["+", "+", "+", "plus"])
        return Problem(self.name, word(rng, f"{a} {sign} {b}"), str(a + b), thoughts)


@dataclass(frozen=True)
class OutOfReach:
    """Anything else; the honest answer is that nano cannot do it."""

    name: str = "out of reach"

    def draw(self, rng: Random, split: Split) -> Problem:
        thoughts: dict[Effort, str] = {
            "low": "",
            "medium": REFUSAL_THOUGHT,
            "high": REFUSAL_THOUGHT,
        }
        return Problem(self.name, out_of_reach_question(rng, split), REFUSAL, thoughts)


def word(rng: Random, expression: str) -> str:
    return rng.choice(ARITHMETIC_WORDINGS).format(expression)


TRAINING_MIX: tuple[tuple[Task, float], ...] = (
    (Products(), 0.7),
    (Sums(), 0.18),
    (OutOfReach(), 0.12),
)

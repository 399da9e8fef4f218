"""How nano writes a product down, as steps that go on from any of them, even a wrong one.

`medium` is a line for each partial product: two digits for each place from the right (carry, digit
written), then the whole. `high` works as on paper, one true equation a line:
digit*digit+carry=two digits, and digit+digit+carry=two digits where the partial products are added.

What is written stands: each later step is worked out from the results before it and never from the
numbers of the question where a result replaced them. So a changed result changes all that follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from oss_lab.harmony.messages import Effort
from oss_lab.nano.tasks.arithmetic import by_effort, digit_at, digits

Kind = Literal["digit product", "partial product", "digit sum", "total"]


@dataclass(frozen=True)
class Step:
    """A piece of a trace: what leads to a result, and the result, digits only.

    Attributes:
        tens: the first of two digits is carried on and stays below this; None for a whole number.
    """

    kind: Kind
    lead: str
    result: str
    tens: int | None = None


@dataclass
class Paper:
    """Where steps are written down; the first ones have the `given` results, true or not."""

    given: Sequence[str]
    steps: list[Step] = field(default_factory=list)

    def write(self, kind: Kind, lead: str, result: str, tens: int | None = None) -> str:
        """Write a step unless it is given; returns the result that stands there."""
        if len(self.steps) < len(self.given):
            result = self.given[len(self.steps)]
        self.steps.append(Step(kind, lead, result, tens))
        return result


def product_thoughts(a: int, b: int) -> dict[Effort, str]:
    """The traces of a * b for b < 100; a is written first and b is taken apart."""
    return by_effort("", text(product_steps(a, b, "medium")), text(product_steps(a, b, "high")))


def product_steps(a: int, b: int, effort: Effort, given: Sequence[str] = ()) -> list[Step]:
    """The steps of a * b at medium or high effort, carried on from `given` results.

    >>> text(product_steps(347, 62, "medium"))
    '347*2:14,09,06=694\\n347*60:42,28,20=20820'
    >>> text(product_steps(347, 62, "medium", given=["24"]))
    '347*2:24,10,07=704\\n347*60:42,28,20=20820'
    """
    paper = Paper(given)
    parts = [
        partial_product(paper, a, digit, zeros, effort) for digit, zeros in partial_products(b)
    ]
    if effort == "high" and len(parts) == 2:
        total(paper, *parts)
    return paper.steps


def partial_products(b: int) -> list[tuple[int, int]]:
    """(digit, zeros) for the non-zero digits of b, from the right; [(0, 0)] for b = 0."""
    return [(d, n) for n, d in enumerate(digits(b)) if d] or [(0, 0)]


def partial_product(paper: Paper, a: int, digit: int, zeros: int, effort: Effort) -> int:
    """Write a * digit with `zeros` behind it; returns the result that stands there."""
    high = effort == "high"
    heading = ("\n" if paper.steps else "") + f"{a}*{digit * 10**zeros}"
    carry, written = 0, ""
    for n, d in enumerate(digits(a)):
        equation = f"\n{d}*{digit}+{carry}=" if high else ":" if n == 0 else ","
        lead = equation if n else heading + equation
        result = paper.write("digit product", lead, f"{d * digit + carry:02d}", max(1, digit))
        carry, written = int(result) // 10, result[-1] + written
    value = int(f"{carry}{written}") * 10**zeros
    return int(paper.write("partial product", "\n=" if high else "=", str(value)))


def total(paper: Paper, a: int, b: int) -> None:
    """Write a + b digit by digit."""
    heading, carry, written = f"\n{a}+{b}", 0, ""
    for place in range(max(len(digits(a)), len(digits(b)))):
        x, y = digit_at(a, place), digit_at(b, place)
        lead = f"{heading if place == 0 else ''}\n{x}+{y}+{carry}="
        result = paper.write("digit sum", lead, f"{x + y + carry:02d}", 2)
        carry, written = int(result) // 10, result[-1] + written
    paper.write("total", "\n=", str(int(f"{carry}{written}")))


def text(steps: Sequence[Step]) -> str:
    """The trace as it is written."""
    return "".join(step.lead + step.result for step in steps)


def answer(steps: Sequence[Step]) -> int:
    """What a complete trace comes to; at medium the partial products are added in the head."""
    if steps[-1].kind == "total":
        return int(steps[-1].result)
    return sum(int(step.result) for step in steps if step.kind == "partial product")


def misreadings(step: Step) -> list[str]:
    """The results with one digit changed that could stand there: no carry that the operation
    cannot have, no leading zero before a whole number."""
    changed = [
        step.result[:place] + digit + step.result[place + 1 :]
        for place, old in enumerate(step.result)
        for digit in "0123456789"
        if digit != old
    ]
    if step.tens is not None:
        return [result for result in changed if int(result[0]) < step.tens]
    return [result for result in changed if str(int(result)) == result]

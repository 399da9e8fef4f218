"""The chain of thought for a product, in steps that can continue from a wrong result.

`medium` has one line per partial product: from the right, two digits for each place (the carry,
then the digit written), and then the result. `high` works as on paper, with one equation per line:
digit*digit+carry=two digits, and digit+digit+carry=two digits to add the partial products.

Each step is computed from the results written before it, not from the numbers of the question if a
result has replaced them. A changed result therefore changes everything that follows from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from oss_lab.harmony.messages import Effort
from oss_lab.nano.tasks.arithmetic import by_effort, digit_at, split_digits

Kind = Literal["digit product", "partial product", "digit sum", "total"]


@dataclass(frozen=True)
class ProductStep:
    """A piece of the chain of thought: the text before a result, and the result (only digits).

    Attributes:
        tens: for a result of two digits, an exclusive upper bound of the first, the carry; None if
            the result is a number of any length.
    """

    kind: Kind
    lead: str
    result: str
    tens: int | None = None


@dataclass
class Paper:
    """The steps written so far. The first ones get the `given` results, even if these are wrong."""

    given: Sequence[str]
    steps: list[ProductStep] = field(default_factory=list)

    def write(self, kind: Kind, lead: str, result: str, tens: int | None = None) -> str:
        """Write a step with its given result, or else with `result`; return the result written."""
        if len(self.steps) < len(self.given):
            result = self.given[len(self.steps)]
        self.steps.append(ProductStep(kind, lead, result, tens))
        return result


def write_product_thoughts(a: int, b: int) -> dict[Effort, str]:
    """The chain of thought for a * b with b < 100: a is multiplied by each digit of b."""
    return by_effort(
        "", join_steps(work_out_product(a, b, "medium")), join_steps(work_out_product(a, b, "high"))
    )


def work_out_product(
    a: int, b: int, effort: Effort, given: Sequence[str] = ()
) -> list[ProductStep]:
    """The steps of a * b at medium or high effort, continued from the `given` results.

    >>> join_steps(work_out_product(347, 62, "medium"))
    '347*2:14,09,06=694\\n347*60:42,28,20=20820'
    >>> join_steps(work_out_product(347, 62, "medium", given=["24"]))
    '347*2:24,10,07=704\\n347*60:42,28,20=20820'
    """
    paper = Paper(given)
    parts = [
        write_partial_product(paper, a, digit, zeros, effort) for digit, zeros in split_factor(b)
    ]
    if effort == "high" and len(parts) == 2:
        write_total(paper, *parts)
    return paper.steps


def split_factor(b: int) -> list[tuple[int, int]]:
    """(digit, zeros) for the non-zero digits of b, from the right; [(0, 0)] for b = 0."""
    return [(d, n) for n, d in enumerate(split_digits(b)) if d] or [(0, 0)]


def write_partial_product(paper: Paper, a: int, digit: int, zeros: int, effort: Effort) -> int:
    """Write a * digit with `zeros` appended; return the result written."""
    high = effort == "high"
    heading = ("\n" if paper.steps else "") + f"{a}*{digit * 10**zeros}"
    carry, written = 0, ""
    for n, d in enumerate(split_digits(a)):
        equation = f"\n{d}*{digit}+{carry}=" if high else ":" if n == 0 else ","
        lead = equation if n else heading + equation
        result = paper.write("digit product", lead, f"{d * digit + carry:02d}", max(1, digit))
        carry, written = int(result) // 10, result[-1] + written
    value = int(f"{carry}{written}") * 10**zeros
    return int(paper.write("partial product", "\n=" if high else "=", str(value)))


def write_total(paper: Paper, a: int, b: int) -> None:
    """Write a + b digit by digit."""
    heading, carry, written = f"\n{a}+{b}", 0, ""
    for place in range(max(len(split_digits(a)), len(split_digits(b)))):
        x, y = digit_at(a, place), digit_at(b, place)
        lead = f"{heading if place == 0 else ''}\n{x}+{y}+{carry}="
        result = paper.write("digit sum", lead, f"{x + y + carry:02d}", 2)
        carry, written = int(result) // 10, result[-1] + written
    paper.write("total", "\n=", str(int(f"{carry}{written}")))


def join_steps(steps: Sequence[ProductStep]) -> str:
    """The steps as text."""
    return "".join(step.lead + step.result for step in steps)


def compute_answer(steps: Sequence[ProductStep]) -> int:
    """The answer after all steps. Medium does not write down how it adds the partial products."""
    if steps[-1].kind == "total":
        return int(steps[-1].result)
    return sum(int(step.result) for step in steps if step.kind == "partial product")


def list_misreadings(step: ProductStep) -> list[str]:
    """All plausible results with one digit changed: the carry stays possible, and a number of any
    length gets no leading zero."""
    changed = [
        step.result[:place] + digit + step.result[place + 1 :]
        for place, old in enumerate(step.result)
        for digit in "0123456789"
        if digit != old
    ]
    if step.tens is not None:
        return [result for result in changed if int(result[0]) < step.tens]
    return [result for result in changed if str(int(result)) == result]

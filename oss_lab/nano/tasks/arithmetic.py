"""The chain of thought for sums and differences at each effort; `product_steps` has products.

`low` has no chain of thought. `medium` writes results without equations: from the right, two digits
for each place (the carry or borrow, then the digit written), and then the total. `high` works as on
paper, with one equation per line: digit+digit+carry=two digits. For differences it is
digit-digit-borrow=digit, with a 1 before the first digit if ten was borrowed.
"""

from oss_lab.harmony.messages import EFFORTS, Effort


def split_digits(number: int) -> list[int]:
    """Decimal digits from the right: 347 gives [7, 4, 3]."""
    return [int(d) for d in reversed(str(number))]


def digit_at(number: int, place: int) -> int:
    return number // 10**place % 10


def digit_sums(a: int, b: int) -> list[tuple[int, int, int, int]]:
    """(digit of a, digit of b, carry in, result) from the right for a + b."""
    steps, carry = [], 0
    for place in range(max(len(split_digits(a)), len(split_digits(b)))):
        x, y = digit_at(a, place), digit_at(b, place)
        steps.append((x, y, carry, x + y + carry))
        carry = steps[-1][-1] // 10
    return steps


def digit_differences(a: int, b: int) -> list[tuple[int, int, int, int, int]]:
    """(digit of a, digit of b, borrow in, borrowed, result) from the right for a - b, a >= b."""
    steps, borrow = [], 0
    for place in range(len(split_digits(a))):
        x, y = digit_at(a, place), digit_at(b, place)
        borrowed = int(x - y - borrow < 0)
        steps.append((x, y, borrow, borrowed, x - y - borrow + 10 * borrowed))
        borrow = borrowed
    return steps


def plus_lines(a: int, b: int) -> list[str]:
    """a + b digit by digit: a heading, one line per digit of the longer number, the result."""
    lines = [f"{x}+{y}+{carry}={result:02d}" for x, y, carry, result in digit_sums(a, b)]
    return [f"{a}+{b}", *lines, f"={a + b}"]


def minus_lines(a: int, b: int) -> list[str]:
    """a - b for a >= b digit by digit: a heading, one line per digit of a, the result."""
    lines = [
        f"{borrowed or ''}{x}-{y}-{borrow}={result}"
        for x, y, borrow, borrowed, result in digit_differences(a, b)
    ]
    return [f"{a}-{b}", *lines, f"={a - b}"]


def plus_results(a: int, b: int) -> str:
    """a + b on one line: the sum of each place from the right, then the result."""
    steps = ",".join(f"{result:02d}" for *_, result in digit_sums(a, b))
    return f"{a}+{b}:{steps}={a + b}"


def minus_results(a: int, b: int) -> str:
    """a - b for a >= b on one line: borrow and digit of each place from the right, the result."""
    steps = ",".join(f"{borrowed}{result}" for *_, borrowed, result in digit_differences(a, b))
    return f"{a}-{b}:{steps}={a - b}"


def write_sum_thoughts(terms: list[int]) -> dict[Effort, str]:
    """The chain of thought for a sum of signed terms: running totals, at high digit by digit.

    At medium, only sums of two terms are worked out by place. Only two terms can have a negative
    result; the terms are then swapped.
    """
    if sum(terms[:2]) < 0:
        a, b = terms[0], -terms[1]
        swapped = by_effort("", minus_results(b, a), "\n".join(minus_lines(b, a)))
        return {effort: text and f"{a}<{b}\n{text}" for effort, text in swapped.items()}
    totals, fine, total = list[str](), list[str](), terms[0]
    for term in terms[1:]:
        sign = "+" if term >= 0 else "-"
        fine += plus_lines(total, term) if term >= 0 else minus_lines(total, -term)
        totals.append(f"{total}{sign}{abs(term)}={total + term}")
        total += term
    if len(terms) == 2:
        a, b = terms
        totals = [plus_results(a, b) if b >= 0 else minus_results(a, -b)]
    return by_effort("", "\n".join(totals), "\n".join(fine))


def by_effort(low: str, medium: str, high: str) -> dict[Effort, str]:
    return dict(zip(EFFORTS, (low, medium, high), strict=True))

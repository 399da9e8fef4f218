"""How nano writes sums and differences down at each effort; products are in `product_steps`.

`low` thinks nothing. `medium` writes results and leaves the equations out. `high` works
digit by digit from the right, as on paper, one true equation a line: digit+digit+carry=two digits,
and for differences digit-digit-borrow=digit, where a borrowed ten stands as a 1 before the first
digit.
"""

from oss_lab.harmony.messages import EFFORTS, Effort


def digits(number: int) -> list[int]:
    """Decimal digits from the right: 347 gives [7, 4, 3]."""
    return [int(d) for d in reversed(str(number))]


def digit_at(number: int, place: int) -> int:
    return number // 10**place % 10


def plus_lines(a: int, b: int) -> list[str]:
    """a + b by digits: a heading, a line per digit of the longer one, the result."""
    lines, carry = [f"{a}+{b}"], 0
    for place in range(max(len(digits(a)), len(digits(b)))):
        x, y = digit_at(a, place), digit_at(b, place)
        result = x + y + carry
        lines.append(f"{x}+{y}+{carry}={result:02d}")
        carry = result // 10
    return [*lines, f"={a + b}"]


def minus_lines(a: int, b: int) -> list[str]:
    """a - b for a >= b by digits: a heading, a line per digit of a, the result."""
    lines, borrow = [f"{a}-{b}"], 0
    for place in range(len(digits(a))):
        x, y = digit_at(a, place), digit_at(b, place)
        borrowed = x - y - borrow < 0
        top = f"1{x}" if borrowed else f"{x}"
        lines.append(f"{top}-{y}-{borrow}={x - y - borrow + 10 * borrowed}")
        borrow = int(borrowed)
    return [*lines, f"={a - b}"]


def sum_thoughts(terms: list[int]) -> dict[Effort, str]:
    """The traces of a sum of signed terms: running totals, at high by digits.

    Two terms at medium are the digits of the result from the right. A negative result comes only
    of two terms and is worked out the other way round.
    """
    if sum(terms[:2]) < 0:
        a, b = terms[0], -terms[1]
        swapped = by_effort("", f"{b}-{a}: {from_right(b - a)}", "\n".join(minus_lines(b, a)))
        return {effort: text and f"{a}<{b}\n{text}" for effort, text in swapped.items()}
    totals, fine, total = [], [], terms[0]
    for term in terms[1:]:
        sign = "+" if term >= 0 else "-"
        fine += plus_lines(total, term) if term >= 0 else minus_lines(total, -term)
        totals.append(f"{total}{sign}{abs(term)}={total + term}")
        total += term
    if len(terms) == 2:
        a, b = terms[0], abs(terms[1])
        totals = [f"{a}{'+' if terms[1] >= 0 else '-'}{b}: {from_right(total)}"]
    return by_effort("", "\n".join(totals), "\n".join(fine))


def from_right(number: int) -> str:
    """The digits from the right, with spaces."""
    return " ".join(map(str, digits(number)))


def by_effort(low: str, medium: str, high: str) -> dict[Effort, str]:
    return dict(zip(EFFORTS, (low, medium, high), strict=True))

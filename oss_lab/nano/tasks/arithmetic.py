"""How nano writes sums and differences down at each effort; products are in `product_steps`.

`low` thinks nothing. `medium` writes results and leaves the equations out: two digits for each
place from the right, what is carried (or borrowed) and what is written, then the whole. `high`
works as on paper, one true equation a line: digit+digit+carry=two digits, and for differences
digit-digit-borrow=digit, where a borrowed ten stands as a 1 before the first digit.
"""

from oss_lab.harmony.messages import EFFORTS, Effort


def digits(number: int) -> list[int]:
    """Decimal digits from the right: 347 gives [7, 4, 3]."""
    return [int(d) for d in reversed(str(number))]


def digit_at(number: int, place: int) -> int:
    return number // 10**place % 10


def digit_sums(a: int, b: int) -> list[tuple[int, int, int, int]]:
    """(digit of a, digit of b, carry in, result) from the right for a + b."""
    steps, carry = [], 0
    for place in range(max(len(digits(a)), len(digits(b)))):
        x, y = digit_at(a, place), digit_at(b, place)
        steps.append((x, y, carry, x + y + carry))
        carry = steps[-1][-1] // 10
    return steps


def digit_differences(a: int, b: int) -> list[tuple[int, int, int, int, int]]:
    """(digit of a, digit of b, borrow in, borrowed, result) from the right for a - b, a >= b."""
    steps, borrow = [], 0
    for place in range(len(digits(a))):
        x, y = digit_at(a, place), digit_at(b, place)
        borrowed = int(x - y - borrow < 0)
        steps.append((x, y, borrow, borrowed, x - y - borrow + 10 * borrowed))
        borrow = borrowed
    return steps


def plus_lines(a: int, b: int) -> list[str]:
    """a + b by digits: a heading, a line per digit of the longer one, the result."""
    lines = [f"{x}+{y}+{carry}={result:02d}" for x, y, carry, result in digit_sums(a, b)]
    return [f"{a}+{b}", *lines, f"={a + b}"]


def minus_lines(a: int, b: int) -> list[str]:
    """a - b for a >= b by digits: a heading, a line per digit of a, the result."""
    lines = [
        f"{borrowed or ''}{x}-{y}-{borrow}={result}"
        for x, y, borrow, borrowed, result in digit_differences(a, b)
    ]
    return [f"{a}-{b}", *lines, f"={a - b}"]


def plus_results(a: int, b: int) -> str:
    """a + b on one line: results from the right, what they make."""
    steps = ",".join(f"{result:02d}" for *_, result in digit_sums(a, b))
    return f"{a}+{b}:{steps}={a + b}"


def minus_results(a: int, b: int) -> str:
    """a - b for a >= b on one line: what is borrowed and written from the right, what it makes."""
    steps = ",".join(f"{borrowed}{result}" for *_, borrowed, result in digit_differences(a, b))
    return f"{a}-{b}:{steps}={a - b}"


def sum_thoughts(terms: list[int]) -> dict[Effort, str]:
    """The traces of a sum of signed terms: running totals, at high by digits.

    At medium only two terms are taken apart. A negative result comes only of two terms and is
    worked out the other way round.
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

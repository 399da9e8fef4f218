"""How nano writes arithmetic down: the chain of thought of products and sums at each effort.

`low` thinks nothing. `medium` names the partial results only. `high` works digit by digit from
the right, as on paper: each line is digit*digit+carry, or digit+digit+carry, and its two-digit
result is "carry, digit written", so that every line can be checked on its own.
"""


def digits(number: int) -> list[int]:
    """Decimal digits from the right: 347 gives [7, 4, 3]."""
    return [int(d) for d in reversed(str(number))]


def times_digit(a: int, digit: int, zeros: int) -> list[str]:
    """a * digit * 10^zeros by digits: a heading, a line per digit of a, the result."""
    lines, carry = [f"{a}*{digit * 10**zeros}"], 0
    for d in digits(a):
        step = d * digit + carry
        lines.append(f"{d}*{digit}+{carry}={step:02d}")
        carry = step // 10
    return [*lines, f"={a * digit * 10**zeros}"]


def plus(a: int, b: int) -> list[str]:
    """a + b by digits: a heading, a line per digit of the longer one, the result."""
    lines, carry = [f"{a}+{b}"], 0
    left, right = digits(a), digits(b)
    for n in range(max(len(left), len(right))):
        x = left[n] if n < len(left) else 0
        y = right[n] if n < len(right) else 0
        step = x + y + carry
        lines.append(f"{x}+{y}+{carry}={step:02d}")
        carry = step // 10
    return [*lines, f"={a + b}"]


def partial_products(a: int, b: int) -> list[tuple[int, int]]:
    """(digit, zeros) for the non-zero digits of b, from the right; [(0, 0)] for b = 0."""
    return [(d, n) for n, d in enumerate(digits(b)) if d] or [(0, 0)]


def product_trace(a: int, b: int, effort: str) -> str:
    """The chain of thought for a * b; a is written first and b is taken apart."""
    if effort == "low":
        return ""
    parts = partial_products(a, b)
    if effort == "medium":
        lines = [f"{a}*{d * 10**n}={a * d * 10**n}" for d, n in parts]
        if len(parts) == 2:
            first, second = (a * d * 10**n for d, n in parts)
            lines.append(f"{first}+{second}={a * b}")
        return "\n".join(lines)
    lines = [line for d, n in parts for line in times_digit(a, d, n)]
    if len(parts) == 2:
        lines += plus(*(a * d * 10**n for d, n in parts))
    return "\n".join(lines)


def sum_trace(a: int, b: int, effort: str) -> str:
    """The chain of thought for a + b."""
    if effort == "low":
        return ""
    if effort == "medium":
        return f"{a}+{b}, from the right: " + " ".join(map(str, digits(a + b)))
    return "\n".join(plus(a, b))

"""What the card's sections on findings are put together from: tables, shares and means."""

from collections.abc import Iterable
from typing import Any

Found = dict[str, Any]
Cells = tuple[str, ...]


def table(head: Cells, rows: Iterable[Cells]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def share(found: Found) -> str:
    """A percentage with its interval; `none` of nothing."""
    if found["value"] is None:
        return "none"
    low, high = found["interval"]
    return f"{found['value']:.1%} ({low:.1%} – {high:.1%})"


def pair(accuracy: Found) -> Cells:
    """How many problems, and the accuracy of both models on them."""
    first, second = accuracy["first"], accuracy["second"]
    return str(first["n"]), share(first), share(second)


def mean(found: Found, digits: int = 1) -> str:
    """A mean with its interval; `none` of nothing."""
    if found["value"] is None:
        return "none"
    if found["interval"] is None:
        return f"{found['value']:.{digits}f}"
    low, high = found["interval"]
    return f"{found['value']:.{digits}f} ({low:.{digits}f} – {high:.{digits}f})"

"""Format the parts of the card: tables, paragraphs, numbers and results."""

import textwrap
from collections.abc import Iterable
from typing import Any

Finding = dict[str, Any]
Cells = tuple[str, ...]


def format_table(head: Cells, rows: Iterable[Cells]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def wrap(markdown: str) -> str:
    """Wrap the paragraphs of a Markdown text; headings, lists and tables stay as they are."""
    blocks = markdown.split("\n\n")
    return "\n\n".join(
        block
        if block.startswith(("#", "- ", "|"))
        else textwrap.fill(
            " ".join(block.split()), 100, break_on_hyphens=False, break_long_words=False
        )
        for block in blocks
    )


def fill(text: str, *values: float | str | None) -> str:
    """`text` with `values` in its braces; "" if a value is missing: None or ""."""
    return "" if None in values or "" in values else text.format(*values)


def format_result(*sentences: str) -> str:
    """A paragraph of the sentences that are not empty; "" if all are empty."""
    return fill("Result: {}", " ".join(filter(None, sentences)))


def format_range(values: Iterable[float | None], form: str) -> str:
    """The smallest and the largest value in the format `form`, or one if they look the same.

    Ignores None; "" if nothing is left.
    """
    known = [value for value in values if value is not None]
    ends = [format(end(known), form) for end in (min, max)] if known else []
    return " to ".join(dict.fromkeys(ends))


def list_changes(changes: Iterable[tuple[str, float | None, float | None]]) -> str:
    """Each label with the shares before and after a change, if neither is None."""
    texts = (fill("{}, from {:.1%} to {:.1%}", *change) for change in changes)
    return "; ".join(filter(None, texts))


def format_value(value: float | None, form: str) -> str:
    """A number in the format `form`; `none` for None."""
    return "none" if value is None else format(value, form)


def format_share(found: Finding) -> str:
    """A percentage with its interval; `none` if n is 0."""
    if found["value"] is None:
        return "none"
    low, high = found["interval"]
    return f"{found['value']:.1%} ({low:.1%} – {high:.1%})"


def format_pair(accuracy: Finding) -> Cells:
    """The number of problems, and the accuracy of both models on them."""
    first, second = accuracy["first"], accuracy["second"]
    return str(first["n"]), format_share(first), format_share(second)


def format_mean(found: Finding, digits: int = 1) -> str:
    """A mean with its interval; `none` if n is 0."""
    if found["value"] is None:
        return "none"
    if found["interval"] is None:
        return f"{found['value']:.{digits}f}"
    low, high = found["interval"]
    return f"{found['value']:.{digits}f} ({low:.{digits}f} – {high:.{digits}f})"

"""What a view shows without a kernel: a transcript or a table, as escaped HTML and one sentence.

A saved notebook holds it, and GitHub and nbconvert show it. It never computes what takes long: an
analysis is in it once it was requested.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from oss_lab.plots import Passage
from oss_lab.plots.style import plural
from oss_lab.plots.tokens import make_visible

LONGEST = 200  # rows of a table


def show_sentence(sentence: str) -> Passage:
    """A sentence instead of a picture."""
    return Passage(f"<p><b>{escape(sentence)}</b></p>", sentence)


def show_table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> Passage:
    """A table; its sentence is the caption. Rows after LONGEST are left out, and it says so."""
    left = len(rows) - LONGEST
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(show_value(cell))}</td>" for cell in row) + "</tr>"
        for row in rows[:LONGEST]
    )
    more = f"<p>{plural(left, 'more row')} not shown.</p>" if left > 0 else ""
    html = (
        f"<p>{escape(caption)}</p><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>{more}"
    )
    return Passage(html, caption)


def show_value(value: Any) -> str:
    """A cell: a number with three digits, a text with its invisible characters."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3g}"
    return "" if value is None else make_visible(str(value))


def join(parts: Sequence[Passage]) -> Passage:
    """Passages one after the other."""
    return Passage("".join(part.html for part in parts), " ".join(part.sentence for part in parts))

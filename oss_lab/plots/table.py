"""The values of a figure as text: for a screen reader, for the keyboard, and for exact numbers.

A heat map is one table, with its rows and columns named as on its axes. A line or a row of bars is
one table with a row for each point.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape, unescape
from typing import Any

import numpy as np
import plotly.graph_objects as go

Rows = Sequence[Sequence[str]]


@dataclass(frozen=True, repr=False)
class Table:
    """Named tables; the first row of each has the names of its columns.

    Printed, columns are separated by tabs. In a notebook it is HTML.
    """

    parts: Sequence[tuple[str, Rows]]

    def __repr__(self) -> str:
        return "\n\n".join(
            "\n".join(([name] if name else []) + ["\t".join(row) for row in rows])
            for name, rows in self.parts
        )

    @property
    def html(self) -> str:
        """One <table> for each part; all text is escaped."""
        return "".join(f"<div>{_html(name, rows)}</div>" for name, rows in self.parts)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        return {"text/html": self.html, "text/plain": repr(self)}


def tabulate(figure: go.Figure) -> Table:
    """Every trace that reacts to the pointer, in the order of drawing."""
    parts = []
    traces: list[Any] = list(figure.select_traces())
    for trace in traces:
        if trace["hoverinfo"] == "skip":  # texts in cells and stripes, which have no values
            continue
        across, down = (_axis(figure, trace, letter) for letter in "xy")
        if trace["type"] == "heatmap":
            parts.append((_title(trace, across), _cells(trace, across, down)))
        else:
            parts.append((_plain(trace["name"] or ""), _points(trace, across, down)))
    return Table(parts)


def _axis(figure: go.Figure, trace: Any, letter: str) -> Any:
    """The layout's axis of a trace."""
    return figure.layout[f"{letter}axis{(trace[f'{letter}axis'] or letter)[1:]}"]


def _title(trace: Any, across: Any) -> str:
    """What a heat map shows: its columns, and the unit of its numbers."""
    unit = trace["colorbar"]["title"]["text"]
    return ": ".join(_plain(each) for each in (across["title"]["text"], unit) if each)


def _cells(trace: Any, across: Any, down: Any) -> Rows:
    z = np.asarray(trace["z"])
    words = trace["customdata"] if trace["customdata"] is not None else trace["text"]
    columns = _names(across, trace["x"], trace["x0"] or 0, z.shape[1])
    names = _names(down, trace["y"], 0, z.shape[0])
    rows = [[_plain(down["title"]["text"] or ""), *columns]]
    for n, numbers in enumerate(z):
        cells = [f"{number:g}" for number in numbers.tolist()]
        if words is not None:
            cells = [
                f"{_plain(str(word))} ({cell})" for word, cell in zip(words[n], cells, strict=True)
            ]
        rows.append([names[n], *cells])
    return rows


def _points(trace: Any, across: Any, down: Any) -> Rows:
    columns = {_plain(across["title"]["text"] or "x"): trace["x"]}
    columns[_plain(down["title"]["text"] or "y")] = trace["y"]
    if trace["text"] is not None and len(trace["text"]):
        columns["text"] = trace["text"]
    points = zip(*columns.values(), strict=True)
    return [list(columns), *([_text(value) for value in point] for point in points)]


def _names(axis: Any, own: Sequence[str] | None, first: int, count: int) -> list[str]:
    """The names of rows or columns: their own, their labels on the axis, or their numbers."""
    if own is not None:
        return list(map(_plain, own))
    labels = axis["ticktext"]
    named = {} if labels is None else dict(zip(axis["tickvals"], labels, strict=True))
    return [_plain(named.get(n, str(n))) for n in range(first, first + count)]


def _text(value: Any) -> str:
    return _plain(value) if isinstance(value, str) else f"{value:.4g}"


def _plain(text: str) -> str:
    """Plotly's text without its markup."""
    return unescape(text.replace("<br>", " ").replace("<b>", "").replace("</b>", ""))


def _html(name: str, rows: Rows) -> str:
    head, *body = rows
    caption = f"<caption>{escape(name)}</caption>" if name else ""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in body
    )
    return f"<table>{caption}<thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table>"

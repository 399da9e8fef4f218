"""The results of a benchmark as a table, for a terminal or in Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from oss_lab.bench.measure import OURS

SIDES = (OURS, "transformers", "llama.cpp")
Row = Mapping[str, Any]  # a Result as JSON has it
Report = Mapping[str, Any]


def group_by_task(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """The rows of each task, by side."""
    tasks: dict[str, dict[str, Row]] = {}
    for row in rows:
        tasks.setdefault(row["task"], {})[row["by"]] = row
    return tasks


def compare_with_best_peer(by: Mapping[str, Row]) -> float | None:
    """How many times better we are than the best peer; None without a peer."""
    peers = [row["spread"]["median"] for name, row in by.items() if name != OURS]
    if not peers or OURS not in by:
        return None
    ours = by[OURS]["spread"]["median"]
    return ours / max(peers) if by[OURS]["unit"] == "tokens/s" else min(peers) / ours


def format_number(value: float) -> str:
    """Three digits, more for large numbers."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def format_spread(row: Row) -> str:
    """The median, and half of the range in percent of it; of recording, the interval."""
    median, low, high = (row["spread"][key] for key in ("median", "low", "high"))
    if row["unit"] == "%":
        return f"{format_number(median)} ({format_number(low)} – {format_number(high)})"
    return f"{format_number(median)} ±{(high - low) / median / 2:.0%}"


def describe_limit(row: Row, reading: float) -> str:
    """The bytes that a step must read, their rate, and its share of the machine's."""
    if row["bytes"] is None:
        return ""
    rate = row["bytes"] / row["spread"]["median"] / 1e6  # bytes per millisecond to GB/s
    return f"{row['bytes'] / 1e6:,.0f} MB, {rate:.1f} GB/s, {rate / reading:.0%}"


def list_lines(report: Report) -> Iterator[list[str]]:
    """The heads of the table, then the cells of each task."""
    found = {row["by"] for row in report["rows"]}
    sides = [side for side in SIDES if side in found]
    has_limits = any(row["bytes"] is not None for row in report["rows"])
    yield [
        "task", "", *sides, *(["×"] if sides[1:] else []), "n", "others",
        *(["limit"] if has_limits else []),
    ]  # fmt: skip
    for task, by in group_by_task(report["rows"]).items():
        first, ratio = next(iter(by.values())), compare_with_best_peer(by)
        cells = [format_spread(by[side]) if side in by else "" for side in sides]
        if sides[1:]:
            cells.append("" if ratio is None else f"{ratio:.2f}")
        others = max(row["others"] for row in by.values())
        cells += [str(first["n"]), f"{others:.0%}"]
        if has_limits:
            cells.append(describe_limit(first, report["reading"]))
        yield [task, first["unit"], *cells]


def describe_columns(report: Report) -> str:
    """What the columns mean."""
    return (
        "median ± half of the range (of recording, a 95% interval); ×: how many times better"
        " oss_lab is than the best peer; others: share of a core that other programs used;"
        " limit: bytes to read per step, their rate, and its share of reading memory at"
        f" {report['reading']:.1f} GB/s"
    )


def describe_machine(report: Report) -> str:
    """The checkpoint, the processor and how it was used."""
    title = "{checkpoint}, {dtype}, {device[name]}, threads: {device[threads]}, {kernels} kernels"
    return title.format(**report)


def build_table(report: Report) -> Table:
    """All results, for a terminal."""
    table = Table(title=describe_machine(report), caption=describe_columns(report))
    heads, *rows = list_lines(report)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number > 1 else "left")
    for cells in rows:
        table.add_row(*cells)
    return table


def format_markdown(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first line has the heads."""
    rows = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)

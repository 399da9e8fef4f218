"""The results of a benchmark as a table, for a terminal or in Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from oss_lab.bench.measure import OURS

SIDES = (OURS, "transformers", "llama.cpp")
Row = Mapping[str, Any]  # a Result as JSON has it


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


def describe_limit(row: Row, reading: float) -> str:
    """The bytes a step must read, at which rate it read them, and the share of the machine's."""
    if row["bytes"] is None:
        return ""
    rate = row["bytes"] / row["spread"]["median"] / 1e6  # bytes per millisecond to GB/s
    return f"{row['bytes'] / 1e6:,.0f} MB, {rate:.1f} GB/s, {rate / reading:.0%}"


def build_table(report: Mapping[str, Any]) -> Table:
    """All results, with their spread."""
    title = "{checkpoint}, {dtype}, {device[name]}, {device[threads]} threads, {kernels} kernels"
    table = Table(
        title=title.format(**report),
        caption="median ± half of the range (of recording, a 95% interval); ×: how many times"
        " better oss_lab is than the best peer; others: share of a core that other programs used;"
        " limit: bytes to read per step, their rate, and its share of reading memory at"
        f" {report['reading']:.1f} GB/s",
    )
    found = {row["by"] for row in report["rows"]}
    sides = [side for side in SIDES if side in found]
    table.add_column("task")
    for column in ("", *sides, *(["×"] if sides[1:] else []), "n", "others", "limit"):
        table.add_column(column, justify="right")
    for task, by in group_by_task(report["rows"]).items():
        first = next(iter(by.values()))
        ratio = compare_with_best_peer(by)
        ratios = ["" if ratio is None else f"{ratio:.2f}"] if sides[1:] else []
        others = max(row["others"] for row in by.values())
        table.add_row(
            task,
            first["unit"],
            *(format_spread(by[side]) if side in by else "" for side in sides),
            *ratios,
            str(first["n"]),
            f"{others:.0%}",
            describe_limit(first, report["reading"]),
        )
    return table


def format_spread(row: Row) -> str:
    """The median, and half of the range in percent of it; of recording, the interval."""
    median, low, high = (row["spread"][key] for key in ("median", "low", "high"))
    if row["unit"] == "%":
        return f"{format_number(median)} ({format_number(low)} – {format_number(high)})"
    return f"{format_number(median)} ±{(high - low) / median / 2:.0%}"


def format_markdown(reports: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> str:
    """The medians of some tasks, as a Markdown table with one column per model and side."""
    return "\n".join(_markdown_lines(reports, tasks))


def _markdown_lines(reports: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> Iterator[str]:
    columns = [(report, side) for report in reports for side in SIDES]
    heads = [f"{report['checkpoint']}: {side}" for report, side in columns]
    yield f"| | {' | '.join(heads)} |"
    yield "|---|" + "---|" * len(columns)
    grouped = {report["checkpoint"]: group_by_task(report["rows"]) for report in reports}
    for task in tasks:
        cells, unit = [], ""
        for report, side in columns:
            row = grouped[report["checkpoint"]].get(task, {}).get(side)
            cells.append("" if row is None else format_number(row["spread"]["median"]))
            unit = row["unit"] if row else unit
        yield f"| {task}, {unit} | {' | '.join(cells)} |"

"""`python -m oss_lab.bench.pages`: write the newest committed results into the project's pages.

The results are the JSON files that `python -m oss_lab.bench --results` wrote into
`kernels/benchmarks/results`. RESULTS.md gets all of them. README.md gets a table of medians, and
a picture of how the time of a step grows with the context.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from oss_lab.bench.command import BUSY
from oss_lab.bench.report import (
    SIDES,
    Report,
    describe_columns,
    describe_machine,
    format_markdown,
    format_number,
    group_by_task,
    list_lines,
)
from oss_lab.errors import LabError
from oss_lab.plots.context_cost import TASK, context_cost
from oss_lab.plots.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
RESULTS, PAGE, README, PICTURE = (
    ROOT / "kernels" / "benchmarks" / "results",
    ROOT / "oss_lab" / "bench" / "RESULTS.md",
    ROOT / "README.md",
    ROOT / "notebooks" / "images" / "context.png",
)
MODELS = {"slice": "20b-wide", "nano": "nano"}
TASKS = (
    "decode 100 after 100",
    "prefill 128",
    "prefill 512",
    "prefill 2,048",
    "first token after 100",
    "load and one token",
    "peak memory, 528 tokens",
)
TABLE = re.compile(r"^\| task \| [^|]*: oss_lab .*\n(?:\|.*\n)*", re.MULTILINE)  # README.md's
CURVE = re.compile(r"^!\[[^]]*\]\(notebooks/images/context\.png\)$", re.MULTILINE)


def main() -> int:
    reports = read_newest()
    PAGE.write_text(format_page(reports), encoding="utf-8")
    curve = draw_curve(reports)
    PICTURE.write_bytes(curve.png())
    text = README.read_text(encoding="utf-8")
    for pattern, new in ((TABLE, format_short(reports) + "\n"), (CURVE, format_curve(curve))):
        text, count = pattern.subn(lambda _, new=new: new, text)
        if count != 1:
            raise LabError(f"{README} has {count} matches of {pattern.pattern!r}; leave one")
    README.write_text(text, encoding="utf-8")
    print(PAGE, README, PICTURE, sep="\n")
    return 0


def draw_curve(reports: dict[str, Report]) -> Figure:
    """The time of a step against the context, of the first report that measured it."""
    return context_cost(
        next(
            report
            for report in reports.values()
            if any(row["task"].startswith(TASK) for row in report["rows"])
        )
    )


def format_curve(curve: Figure) -> str:
    """README.md's line with the picture; its sentence is the alternative text."""
    return f"![{curve.sentence}](notebooks/images/context.png)"


def read_newest() -> dict[str, Report]:
    """The newest report of each model that has one, by file name."""
    found = [sorted(RESULTS.glob(f"model-{name}-*.json")) for name in MODELS]
    return {files[-1].name: json.loads(files[-1].read_text()) for files in found if files}


def format_page(reports: dict[str, Report]) -> str:
    """RESULTS.md: everything that was measured."""
    parts = [
        "# Speed and memory of whole models on a CPU\n\n"
        "Written by `python -m oss_lab.bench.pages` from the newest results in"
        " `kernels/benchmarks/results`. All sides of a table ran in turn in one run of"
        " `python -m oss_lab.bench --peers`. Only ratios within a table can be compared.\n"
    ]
    for name, report in reports.items():
        versions = ", ".join(
            f"{package} {version if isinstance(version, str) else version['build_commit']}"
            for package, version in report["versions"].items()
            if version
        )
        missing = "".join(f" Not compared with {sentence}." for sentence in report["missing"])
        busy = "" if report["quiet"] else f" {BUSY}"
        parts.append(
            f"## {MODELS[report['checkpoint']]}\n\n"
            f"{describe_machine(report)}; {report['date'][:10]}, commit {report['commit']}."
            f" {versions}. Instruction sets: {', '.join(report['device']['instructions'])}."
            f" File: `{name}`.{missing}{busy}\n\n"
            f"{format_markdown(list(list_lines(report)))}\n\n"
            f"Columns: {describe_columns(report)}.\n"
        )
    return "\n".join(parts)


def format_short(reports: dict[str, Report]) -> str:
    """README.md's table: medians of some tasks, a column per model and side."""
    lines = [["task", *(f"{MODELS[each['checkpoint']]}: {side}" for each, side in _pairs(reports))]]
    grouped = {name: group_by_task(report["rows"]) for name, report in reports.items()}
    for task in TASKS:
        cells, unit = [], ""
        for by in (found.get(task, {}) for found in grouped.values()):
            for side in SIDES:
                row = by.get(side)
                cells.append("" if row is None else format_number(row["spread"]["median"]))
                unit = unit if row is None else row["unit"]
        if unit:
            lines.append([f"{task}, {unit}", *cells])
    return format_markdown(lines)


def _pairs(reports: dict[str, Report]) -> Sequence[tuple[Report, str]]:
    return [(report, side) for report in reports.values() for side in SIDES]


if __name__ == "__main__":
    sys.exit(main())

"""The measured table of mistakes: its rows, the file that they are in, and the table as text.

Rows are grouped by what the mistake changed in nano:

- it breaks nano if at most 5% of the problems of every task are solved;
- it makes nano worse if in some task it solves fewer problems than the library: of the problems
  that only one of the two solves, too many are the library's (exact sign test, p < 0.05 over all
  tasks together);
- otherwise it changes the logits, or not even those: no logit by more than 0.01.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from oss_lab.analysis.statistics.shares import Share
from oss_lab.checkpoint.atomic import write_text
from oss_lab.course.mistakes import EFFECTS, TABLE, Effect
from oss_lab.errors import LabError

TASKS = {
    "product 3x2 digits": "product",
    "sum 5 terms": "sum",
    "look-up beyond the window": "look-up",
    "look-up beyond the initial context": "far look-up",
}
"""Rows of the built-in evaluation, with their column in the table."""
NONE = "none"
TOKENS, SHORT = 360, 28  # of the text for the KL; the short one is inside the window of 32
ALPHA, HIDDEN = 0.05, 0.01  # of the sign test; a change of a logit that counts as none


@dataclass(frozen=True)
class Row:
    """What one mistake changes.

    Attributes:
        right: for each measured task, one character per problem: 1 if it was solved.
        largest: the largest change of a logit, over the first TOKENS tokens of a text.
        kl, kl_short: the mean KL over these tokens, and over the first SHORT ones.
    """

    right: dict[str, str]
    largest: float
    kl: float
    kl_short: float

    def share(self, task: str) -> Share:
        return Share.of([each == "1" for each in self.right[task]])


@dataclass(frozen=True)
class Settings:
    """What a row depends on; only rows of the same settings belong in one table."""

    n: int
    seed: int


def is_worse(right: str, wrong: str) -> bool:
    """Whether the wrong lab solves fewer of the same problems, by an exact sign test."""
    lost = sum(a > b for a, b in zip(right, wrong, strict=True))
    won = sum(a < b for a, b in zip(right, wrong, strict=True))
    if lost <= won:
        return False
    test = binomtest(lost, lost + won, alternative="greater")
    return float(test.pvalue) < ALPHA / len(TASKS)


def find_effect(none: Row, row: Row) -> Effect | None:
    """What the mistake changed; the docstring of this module has the rules.

    None if a task was not measured yet.
    """
    if not TASKS.keys() <= row.right.keys() & none.right.keys():
        return None
    if all(row.share(task).count <= 0.05 * row.share(task).n for task in TASKS):
        return "breaks"
    if any(is_worse(none.right[task], row.right[task]) for task in TASKS):
        return "worse"
    return "hidden" if row.largest < HIDDEN else "logits"


# The file of results


def load_results(path: Any) -> tuple[Settings, dict[str, Row]]:
    """Read the settings and the rows, by name of the mistake.

    Raises:
        LabError: the file cannot be read.
    """
    try:
        found = json.loads(path.read_text("utf-8"))
        rows = {name: Row(**row) for name, row in found["rows"].items()}
        return Settings(**found["settings"]), rows
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabError(f"{path} has no results of this command: {error!r}") from None


def load_committed() -> tuple[Settings, dict[str, Row]]:
    """The results that come with oss_lab."""
    return load_results(files("oss_lab") / "assets/course/mistakes.json")


def save_results(path: Path, settings: Settings, rows: Mapping[str, Row]) -> None:
    found = {"settings": asdict(settings), "rows": {name: asdict(rows[name]) for name in rows}}
    write_text(path, json.dumps(found, indent=1) + "\n")


# The table


def build_markdown(rows: Mapping[str, Row]) -> str:
    """The table in Markdown, grouped by effect. A row that changed its group has a note.

    A row with a task that was not measured yet is in the group of `mistakes.py`.
    """
    head = ["mistake", *(f"{each} %" for each in TASKS.values())]
    head += ["max logit change", "mean KL", f"KL, first {SHORT}"]
    lines = [join_cells(head), join_cells(["---"] * len(head))]
    none = rows[NONE]
    lines.append(join_cells(["*none*", *describe_row(none)]))
    known: dict[str, Effect] = {each.name: each.effect for each in TABLE}
    found = {name: find_effect(none, rows[name]) for name in known if name in rows}
    for effect, title in EFFECTS.items():
        lines.append(join_cells([f"**{title}**", *[""] * (len(head) - 1)]))
        for name in (name for name in found if (found[name] or known[name]) == effect):
            moved = found[name] not in (None, known[name])
            note = f" (before: {EFFECTS[known[name]]})" if moved else ""
            lines.append(join_cells([name + note, *describe_row(rows[name])]))
    return "\n".join(lines)


def describe_row(row: Row) -> list[str]:
    cells = []
    for task in TASKS:
        if task not in row.right:
            cells.append("not measured")
            continue
        share = row.share(task)
        assert share.value is not None  # there is at least one problem
        assert share.interval is not None
        low, high = share.interval
        cells.append(f"{share.value:.0%} ({low:.0%} – {high:.0%})".replace("%", ""))
    return [*cells, *(f"{each:.2g}" for each in (row.largest, row.kl, row.kl_short))]


def join_cells(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"

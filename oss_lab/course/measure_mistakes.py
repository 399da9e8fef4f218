"""Measure what each mistake of the table does to nano, and print the table.

    python -m oss_lab.course.measure_mistakes                 about an hour on one core
    python -m oss_lab.course.measure_mistakes --out FILE      measures what FILE lacks
    python -m oss_lab.course.measure_mistakes --print         the results that come with oss_lab

Every row is measured on the same held-out problems at high effort, greedily, in float32. The file
is written after each cell, so a stopped run can resume.
"""

import argparse
import sys
import warnings
from dataclasses import replace
from pathlib import Path

from oss_lab.course.instruments import LogitChange, accuracy, example_ids
from oss_lab.course.mistake_results import (
    NONE,
    SHORT,
    TASKS,
    TOKENS,
    Row,
    Settings,
    build_markdown,
    load_committed,
    load_results,
    save_results,
)
from oss_lab.course.mistakes import TABLE
from oss_lab.errors import LabError
from oss_lab.lab import Lab, load
from oss_lab.progress import report_in_lines, track_progress


def measure_logits(lab: Lab, wrong: Lab, text: list[int]) -> Row:
    """A row with the changes of the logits on this text, and without tasks."""
    ours, theirs = (each.logits(text[:TOKENS]) for each in (lab, wrong))
    whole, short = LogitChange.of(ours, theirs), LogitChange.of(ours[:SHORT], theirs[:SHORT])
    return Row({}, whole.largest, whole.kl, short.kl)


def measure_task(wrong: Lab, task: str, settings: Settings) -> str:
    """One character per problem: 1 if it was solved."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "generation took")  # wrong parts may be slow
        found = accuracy(wrong, task, settings.n, seed=settings.seed)
    return "".join(str(int(each)) for each in found.marks)


def main() -> None:
    parser = argparse.ArgumentParser(prog="oss_lab.course.measure_mistakes", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("mistakes.json"), help="default: here")
    parser.add_argument("-n", type=int, default=100, help="problems of each task (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the problems (default: 0)")
    parser.add_argument("--print", action="store_true", help="print the results of oss_lab")
    given = parser.parse_args()
    try:
        rows = load_committed()[1] if given.print else measure(given.out, given.n, given.seed)
    except LabError as error:
        sys.exit(f"oss_lab.course.measure_mistakes: {error}")
    print(build_markdown(rows))


def measure(path: Path, n: int, seed: int) -> dict[str, Row]:
    """Measure what the file lacks, and write it after each cell."""
    settings, rows = Settings(n, seed), dict[str, Row]()
    if n < 1:
        raise LabError(f"-n is {n}; it must be 1 or more")
    if path.exists():
        found, rows = load_results(path)
        if found != settings:
            raise LabError(f"{path} has {found}, not {settings}; give another --out")
    lab = load("nano", verbose=False)
    text = example_ids(lab)
    makers = {NONE: lambda lab: lab} | {each.name: each.make for each in TABLE}
    for name in makers.keys() - rows.keys():
        rows[name] = measure_logits(lab, makers[name](lab), text)
    rows = {name: rows[name] for name in makers}
    save_results(path, settings, rows)
    todo = [(task, name) for task in TASKS for name in rows if task not in rows[name].right]
    done = 0
    with report_in_lines(lambda: f"measured {done} of {len(todo)} cells so far"):
        for task, name in track_progress(todo, "mistakes", "cell", leave=True):
            right = rows[name].right | {task: measure_task(makers[name](lab), task, settings)}
            rows[name] = replace(rows[name], right=right)
            save_results(path, settings, rows)
            done += 1
    return rows


if __name__ == "__main__":
    main()

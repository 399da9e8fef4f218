"""Measure what each mistake of the table does to nano, and print the table.

    python -m oss_lab.course.measure_mistakes                 about an hour on one core
    python -m oss_lab.course.measure_mistakes --out FILE      resumes the rows that FILE lacks
    python -m oss_lab.course.measure_mistakes --print         the results that come with oss_lab

Every row is measured on the same held-out problems at high effort, greedily, in float32. The file
is written after each row, so a stopped run can resume.
"""

import argparse
import sys
import warnings
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


def measure_row(lab: Lab, wrong: Lab, text: list[int], settings: Settings) -> Row:
    """Measure a lab with a mistake against the library; `text` is that of `example_ids`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "generation took")  # wrong parts may be slow
        return Row(measure_tasks(wrong, settings), *measure_logits(lab, wrong, text))


def measure_tasks(wrong: Lab, settings: Settings) -> dict[str, str]:
    """For each task, which of its problems are solved."""
    return {
        task: "".join(
            str(int(each)) for each in accuracy(wrong, task, settings.n, seed=settings.seed).marks
        )
        for task in TASKS
    }


def measure_logits(lab: Lab, wrong: Lab, text: list[int]) -> tuple[float, float, float]:
    """The largest change of a logit, and the mean KL of the text and of its first tokens."""
    ours, theirs = (each.logits(text[:TOKENS]) for each in (lab, wrong))
    long = LogitChange.of(ours, theirs)
    return long.largest, long.kl, LogitChange.of(ours[:SHORT], theirs[:SHORT]).kl


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
    """Measure the rows that the file lacks, and write it after each one."""
    settings, rows = Settings(n, seed), dict[str, Row]()
    if n < 1:
        raise LabError(f"-n is {n}; it must be 1 or more")
    if path.exists():
        found, rows = load_results(path)
        if found != settings:
            raise LabError(f"{path} has {found}, not {settings}; give another --out")
    lab = load("nano", verbose=False)
    text = example_ids(lab)
    names = [NONE, *(each.name for each in TABLE)]
    makers = {each.name: each.make for each in TABLE}
    todo = [name for name in names if name not in rows]
    with report_in_lines(lambda: f"measured {len(rows)} of {len(names)} rows so far"):
        for name in track_progress(todo, "mistakes", "row", leave=True):
            rows[name] = measure_row(lab, makers.get(name, lambda lab: lab)(lab), text, settings)
            save_results(path, settings, {name: rows[name] for name in names if name in rows})
    return {name: rows[name] for name in names}


if __name__ == "__main__":
    main()

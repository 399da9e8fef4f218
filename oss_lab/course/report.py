"""What a group of learners has done: one line per folder of a learner.

A learner's parts are code. They are checked again only if that was requested, in one process per
learner with limits of time and memory.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oss_lab.course.exercise import judge
from oss_lab.course.exercises import list_exercises
from oss_lab.course.progress import PARTS_FILE, PROGRESS_FILE, load_my_parts, read_progress
from oss_lab.errors import LabError

SECONDS = 60
MEMORY = 4 * 2**30  # bytes


def report_folder(folder: Path, *, run: bool = False) -> Iterator[str]:
    """One line for each folder in `folder` that has a learner's files.

    Raises:
        LabError: `folder` is not a folder, or no learner's files are in it.
    """
    if not folder.is_dir():
        raise LabError(f"{folder} is not a folder")
    files = (PARTS_FILE, PROGRESS_FILE)
    learners = [
        each for each in sorted(folder.iterdir()) if any((each / name).is_file() for name in files)
    ]
    if not learners:
        raise LabError(
            f"no folder in {folder} has a {PROGRESS_FILE}; give a folder with one folder per"
            " learner"
        )
    width = max(len(each.name) for each in learners)
    for learner in learners:
        yield f"{learner.name:{width}}  {describe_learner(learner, run=run)}"


def describe_learner(folder: Path, *, run: bool) -> str:
    """Parts done, checks passed and the last diagnosis of one learner."""
    try:
        done = read_progress(folder)["exercises"]
    except LabError as error:
        return str(error)
    parts = {each.name for each in list_exercises().values() if each.part}
    if run:
        checked = run_again(folder)
        if isinstance(checked, str):
            return checked
        done = done | checked
    passed = {name for name, entry in done.items() if entry["right"]}
    failed = [f"{name}: {each['last']}" for name, each in done.items() if not each["right"]]
    return (
        f"{len(passed & parts)} of {len(parts)} parts, {len(passed)} of {len(list_exercises())}"
        f" checks{' (parts checked again)' if run else ''};"
        f" {f'last diagnosis: {failed[-1]}' if failed else 'nothing is wrong'}"
    )


def run_again(folder: Path) -> dict[str, Any] | str:
    """Check the parts of one learner in a process of limited time; a sentence if that failed."""
    command = [sys.executable, "-m", "oss_lab.course.report", str(folder.resolve())]
    environment = os.environ | {"OSS_LAB_COURSE": str(folder.resolve())}
    try:
        found = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, env=environment
        )
    except subprocess.TimeoutExpired:
        return f"its parts took longer than {SECONDS} s, and were stopped"
    try:
        return json.loads(found.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        last = (found.stderr.splitlines() or [f"exit status {found.returncode}"])[-1]
        return f"its parts could not be checked: {last}"


def check_parts(folder: Path) -> dict[str, Any]:
    """Judge every part in the folder's file; the entries as in a progress file."""
    exercises = {each.part: each for each in list_exercises().values() if each.part}
    entries = {}
    for part, function in load_my_parts(folder).items():
        if part in exercises:
            verdict = judge(exercises[part], function)
            entries[f"my_{part}"] = {"right": verdict.kind == "right", "last": verdict.text}
    return entries


def limit_memory() -> None:
    """Limit this process to MEMORY; Windows has no such limit."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))


if __name__ == "__main__":
    limit_memory()
    print(json.dumps(check_parts(Path(sys.argv[1]))))

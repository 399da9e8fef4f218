"""What learners have done: one line per folder of a learner, or one learner's sheets.

A learner's parts are code. They are checked again only if that was requested, in one process per
learner with limits of time and memory.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from oss_lab.course.exercise import judge
from oss_lab.course.exercises import list_exercises, list_sheets
from oss_lab.course.progress import PARTS_FILE, PROGRESS_FILE, load_my_parts, read_progress
from oss_lab.errors import LabError

SECONDS = 60
MEMORY = 4 * 2**30  # bytes


def report_folder(folder: Path, *, run: bool = False) -> Iterator[str]:
    """One line for each folder in `folder` that has a learner's files.

    If none has and `folder` itself does, one line about it and one per sheet of exercises.

    Raises:
        LabError: `folder` is not a folder, or no learner's files are in it.
    """
    if not folder.is_dir():
        raise LabError(f"{folder} is not a folder")
    learners = [each for each in sorted(folder.iterdir()) if has_files(each)]
    if not learners and has_files(folder):
        yield make_line(describe_learner(folder, run=run))
        yield from report_sheets(folder)
        return
    if not learners:
        raise LabError(
            f"neither {folder} nor a folder in it has a {PROGRESS_FILE}; give the folder of your"
            " notebooks, or one with one folder per learner"
        )
    names = [make_line(each.name) for each in learners]
    width = max(map(len, names))
    for name, learner in zip(names, learners, strict=True):
        yield f"{name:{width}}  {make_line(describe_learner(learner, run=run))}"


def has_files(folder: Path) -> bool:
    """Whether a learner's files are in this folder."""
    return any((folder / name).is_file() for name in (PARTS_FILE, PROGRESS_FILE))


def report_sheets(folder: Path) -> Iterator[str]:
    """One line per sheet: how many of its exercises are right, and which are left."""
    try:
        recorded = read_progress(folder)["exercises"]
    except LabError:
        return  # the line about the learner reports it
    for sheet in list_sheets():
        names = [each.name for each in sheet.exercises]
        left = [name for name in names if not recorded.get(name, {"right": False})["right"]]
        end = f"; left: {', '.join(left)}" if left else ""
        yield f"{sheet.lesson:14} {len(names) - len(left)} of {len(names)}{end}"


def make_line(text: str) -> str:
    """The text as one line without control characters, which a terminal would obey."""
    return "".join(each for each in " ".join(text.split()) if each.isprintable())


def describe_learner(folder: Path, *, run: bool) -> str:
    """Parts done, checks passed and the last diagnosis of one learner."""
    exercises = list_exercises()
    parts = {each.name for each in exercises.values() if each.part}
    try:
        recorded = read_progress(folder)["exercises"]
    except LabError as error:
        return str(error)
    done = {name: entry for name, entry in recorded.items() if name in exercises}
    if run:
        checked = run_again(folder)
        if isinstance(checked, str):
            return checked
        kept = {n: each for n, each in done.items() if n not in parts or not each["right"]}
        done = kept | checked  # a right part that is not in the file was not checked again
    passed = {name for name, entry in done.items() if entry["right"]}
    failed = [f"{name}: {each['last']}" for name, each in done.items() if not each["right"]]
    return (
        f"{len(passed & parts)} of {len(parts)} parts, {len(passed)} of {len(exercises)}"
        f" checks{' (parts checked again)' if run else ''};"
        f" {f'last diagnosis: {failed[-1]}' if failed else 'nothing is wrong'}"
    )


def run_again(folder: Path) -> dict[str, Any] | str:
    """Check the parts of one learner in a process of limited time; a sentence if that failed."""
    command = [sys.executable, "-m", "oss_lab.course.report", str(folder.resolve())]
    environment = os.environ | {"OSS_LAB_COURSE": str(folder.resolve())}
    # Into files: a process that a learner's code started may keep a pipe open after the end.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            env=environment,
            start_new_session=True,
        )
        try:
            status = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            return f"its parts took longer than {SECONDS} s, and were stopped"
        finally:
            stop(process)
        printed, reasons = read_end(out), read_end(errors)
    try:
        return json.loads(printed[-1])
    except (IndexError, ValueError):
        last = (reasons or [f"exit status {status}"])[-1]
        return f"its parts could not be checked: {last}"


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it started; on Windows, the process only."""
    if sys.platform == "win32":
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing is left
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def read_end(file: IO[bytes]) -> list[str]:
    """The last lines of a file, which may be very long."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - 2**20))
    return file.read().decode(errors="replace").splitlines()


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
    try:
        found = check_parts(Path(sys.argv[1]))
    except LabError as error:
        sys.exit(str(error))
    print("\n" + json.dumps(found))

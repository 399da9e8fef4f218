"""What a learner has done: two files in the folder of the notebooks.

`my_parts.py` holds the learner's functions that passed their checks, as ordinary Python. Nothing
reads it unless the learner asks for it. `my_progress.json` holds predictions, and for every
exercise the number of attempts and the last verdict. The environment variable OSS_LAB_COURSE names
another folder.
"""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from oss_lab.course.learner_files import advise_reset, one_writer, read_file, write_file
from oss_lab.errors import LabError, explain_error

PARTS_FILE = "my_parts.py"
PROGRESS_FILE = "my_progress.json"
HEAD = '''"""My parts of gpt-oss, written by `check` in the exercises. Each passed its check."""

import math

import torch
'''


def find_folder() -> Path:
    """The folder of the learner's files: OSS_LAB_COURSE, or the folder of the notebooks.

    Raises:
        LabError: OSS_LAB_COURSE does not name a folder.
    """
    if given := os.environ.get("OSS_LAB_COURSE"):
        folder = Path(given).expanduser()
        if not folder.is_dir():
            raise LabError(f"OSS_LAB_COURSE names {given}, which is not a folder; make it first")
        return folder
    here = Path.cwd()
    is_sheets = here.name == "exercises" and not (here / "exercises").is_dir()
    return here.parent if is_sheets else here


def read_progress(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """The contents of the progress file in `find_folder()`; a missing file is a new start.

    Raises:
        LabError: the file is not a progress file.
    """
    file = (folder or find_folder()) / PROGRESS_FILE
    text = read_file(file)
    if not file.exists():
        return {"exercises": {}, "predictions": {}}
    try:
        found = json.loads(text)
        progress = {kind: found[kind] for kind in ("exercises", "predictions")}
        is_good = all(map(is_exercise, progress["exercises"].values()))
        is_good &= all(map(is_prediction, progress["predictions"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        is_good, progress = False, {}
    if not is_good:
        raise LabError(f"{file} is not a progress file; {advise_reset(file.parent)}")
    return progress


def is_exercise(entry: Any) -> bool:
    """Whether this is what `check` stores."""
    return (
        type(entry["attempts"]) is int
        and isinstance(entry["right"], bool)
        and isinstance(entry["last"], str)
    )


def is_prediction(entry: Any) -> bool:
    """Whether this is what `predict` stores, and `reveal` completes."""
    guess, sure = entry["guess"], entry["sure"]
    ends = guess if isinstance(guess, list) and len(guess) == 2 else [guess, guess]
    return (
        (isinstance(guess, str) or all(isinstance(end, int | float) for end in ends))
        and isinstance(sure, int | float)
        and 0 <= sure <= 1
        and isinstance(entry.get("right", True), bool)
    )


def record(kind: str, name: str, change: Callable[[dict[str, Any] | None], dict[str, Any]]) -> None:
    """Store one entry: `kind` is "exercises" or "predictions"; `change` gets the earlier one.

    Raises:
        LabError: the file cannot be read or written.
    """
    folder = find_folder()
    with one_writer(folder):
        progress = read_progress(folder)
        progress[kind][name] = change(progress[kind].get(name))
        write_file(folder / PROGRESS_FILE, json.dumps(progress, indent=1) + "\n")


def keep_part(part: str, source: str) -> None:
    """Put the source of a part's function into the file of parts; it replaces an earlier one.

    Raises:
        LabError: the file cannot be read or written.
    """
    folder = find_folder()
    with one_writer(folder):
        text = read_file(folder / PARTS_FILE) or HEAD
        earlier = re.compile(rf"\n\n\n# part: {part}\n.*?(?=\n\n\n# part: |\Z)", re.DOTALL)
        text = earlier.sub("", text).rstrip("\n")
        write_file(folder / PARTS_FILE, f"{text}\n\n\n# part: {part}\n{source.strip()}\n")


def read_parts(folder: Path | None = None) -> dict[str, str]:
    """The source of each kept function, by the name of its part; nothing is executed."""
    text = read_file((folder or find_folder()) / PARTS_FILE)
    pieces = text.split("\n\n\n# part: ")[1:]
    return {name: source for name, _, source in (piece.partition("\n") for piece in pieces)}


def load_my_parts(folder: Path | None = None) -> dict[str, Callable[..., Any]]:
    """Run the file of parts; the functions by the names of their parts, for `with_parts`.

    Raises:
        LabError: the file cannot be run, or lacks a function.
    """
    file = (folder or find_folder()) / PARTS_FILE
    # No import: its cache is a file more, and misses a change within the same second.
    space: dict[str, Any] = {"__name__": "my_parts"}
    try:
        exec(compile(read_file(file), str(file), "exec"), space)
    except LabError:
        raise
    except (Exception, SystemExit) as error:
        raise LabError(
            f"{file} raised {explain_error(error)}; correct it, or repeat the exercise"
        ) from error
    names = read_parts(folder)
    if missing := [name for name in names if not callable(space.get(f"my_{name}"))]:
        raise LabError(f"{file} has no function my_{missing[0]}; repeat the exercise")
    return {name: space[f"my_{name}"] for name in names}


def reset(folder: Path | None = None) -> list[Path]:
    """Move both files to numbered backups, and return the backups.

    Raises:
        LabError: there is no such folder, or nothing can be written to it.
    """
    folder, backups = folder or find_folder(), []
    if not folder.is_dir():
        raise LabError(f"{folder} is not a folder")
    with one_writer(folder):
        for file in (folder / PARTS_FILE, folder / PROGRESS_FILE):
            if file.exists():
                number = 1
                while (backup := file.with_stem(f"{file.stem}.backup{number}")).exists():
                    number += 1
                file.rename(backup)
                backups.append(backup)
    return backups

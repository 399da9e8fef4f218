"""What a learner has done: two files in the folder of the notebooks.

`my_parts.py` holds the learner's functions that passed their checks, as ordinary Python. Nothing
reads it unless the learner asks for it. `my_progress.json` holds predictions, and for every
exercise the number of attempts and the last verdict. The environment variable OSS_LAB_COURSE names
another folder.
"""

import importlib.util
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from oss_lab.checkpoint.atomic import write_text
from oss_lab.errors import LabError

PARTS_FILE = "my_parts.py"
PROGRESS_FILE = "my_progress.json"
HEAD = '''"""My parts of gpt-oss, written by `check` in the exercises. Each passed its check."""

import math

import torch
'''


def find_folder() -> Path:
    """The folder of the learner's files: OSS_LAB_COURSE, or the folder of the notebooks."""
    if given := os.environ.get("OSS_LAB_COURSE"):
        return Path(given)
    here = Path.cwd()
    return here.parent if here.name == "exercises" else here


def read_progress(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """The contents of the progress file in `find_folder()`; a missing file is a new start.

    Raises:
        LabError: the file is not a progress file.
    """
    file = (folder or find_folder()) / PROGRESS_FILE
    if not file.exists():
        return {"exercises": {}, "predictions": {}}
    try:
        found = json.loads(file.read_text("utf-8"))
        return {"exercises": dict(found["exercises"]), "predictions": dict(found["predictions"])}
    except (ValueError, KeyError, TypeError):
        raise LabError(
            f"{file} is not a progress file; start again with `oss-lab course reset`, which keeps"
            " a backup"
        ) from None


def record(kind: str, name: str, entry: dict[str, Any]) -> None:
    """Store one entry: `kind` is "exercises" or "predictions"."""
    progress = read_progress()
    progress[kind][name] = entry
    write_text(
        find_folder() / PROGRESS_FILE, json.dumps(progress, indent=1, ensure_ascii=False) + "\n"
    )


def keep_part(part: str, source: str) -> None:
    """Put the source of a part's function into the file of parts; it replaces an earlier one."""
    file = find_folder() / PARTS_FILE
    text = file.read_text("utf-8") if file.exists() else HEAD
    earlier = re.compile(rf"\n\n\n# part: {part}\n.*?(?=\n\n\n# part: |\Z)", re.DOTALL)
    text = earlier.sub("", text).rstrip("\n")
    write_text(file, f"{text}\n\n\n# part: {part}\n{source.strip()}\n")


def read_parts(folder: Path | None = None) -> dict[str, str]:
    """The source of each kept function, by the name of its part; nothing is executed."""
    file = (folder or find_folder()) / PARTS_FILE
    text = file.read_text("utf-8") if file.exists() else ""
    pieces = text.split("\n\n\n# part: ")[1:]
    return {name: source for name, _, source in (piece.partition("\n") for piece in pieces)}


def load_my_parts(folder: Path | None = None) -> dict[str, Callable[..., Any]]:
    """Import the file of parts; the functions by the names of their parts, for `with_parts`.

    Raises:
        LabError: the file cannot be imported.
    """
    file = (folder or find_folder()) / PARTS_FILE
    if not file.exists():
        return {}
    spec = importlib.util.spec_from_file_location("my_parts", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise LabError(
            f"{file} raised {type(error).__name__}: {error}; correct it, or repeat the exercise"
        ) from error
    return {name: getattr(module, f"my_{name}") for name in read_parts(folder)}


def reset(folder: Path | None = None) -> list[Path]:
    """Move both files to numbered backups, and return the backups."""
    folder, backups = folder or find_folder(), []
    for file in (folder / PARTS_FILE, folder / PROGRESS_FILE):
        if file.exists():
            number = 1
            while (backup := file.with_name(f"{file.stem}.backup{number}{file.suffix}")).exists():
                number += 1
            file.rename(backup)
            backups.append(backup)
    return backups

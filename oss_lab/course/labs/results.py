"""The stored result of an experiment: what it measured, with its seed, its machine and its time."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from oss_lab.checkpoint.atomic import write_text
from oss_lab.nano.training.machine import describe_machine

FOLDER = Path(str(files("oss_lab"))) / "assets/course"


def save_result(
    lesson: str, measured: Mapping[str, Any], *, seed: int, seconds: float, threads: int
) -> Path:
    """Write the result of a lesson's experiment. The lessons show that of seed 0; another seed gets
    another file.

    Args:
        lesson: the name of the notebook, such as `18_effort`.
        measured: counts with their n, curves and settings, as plain data.
        seconds: of processor time.
    """
    about = {"seed": seed, "cpu_minutes": round(seconds / 60, 1)}
    stored = about | {"machine": asdict(describe_machine(threads))} | dict(measured)
    path = FOLDER / (f"lab_{lesson}_seed_{seed}.json" if seed else f"lab_{lesson}.json")
    write_text(path, json.dumps(stored, indent=1) + "\n")
    return path


def load_result(lesson: str) -> dict[str, Any]:
    """What `save_result` wrote for this lesson with seed 0."""
    return json.loads((FOLDER / f"lab_{lesson}.json").read_text("utf-8"))

"""Read back the dataclasses that a run wrote as JSON."""

import dataclasses
from pathlib import Path
from typing import Any

from oss_lab.checkpoint.fields import parse_object
from oss_lab.errors import LabError


def read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise LabError(f"there is no {file}; name the folder of a run") from None
    except UnicodeDecodeError:
        raise LabError(f"{file} is not UTF-8, as files of a run are; name another folder") from None


def parse_fields(kind: type, text: str, where: str) -> dict[str, Any]:
    """Parse a JSON object, which must have exactly the fields of this dataclass."""
    try:
        found = parse_object(text.encode())
    except ValueError as error:
        raise LabError(f"{where} {error}") from None
    if other := found.keys() ^ {field.name for field in dataclasses.fields(kind)}:
        names = ", ".join(sorted(other))
        raise LabError(f"{where} is of another version: it differs in {names}")
    return found

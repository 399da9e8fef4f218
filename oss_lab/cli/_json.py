"""JSON files that a person names on the command line, read strictly: UTF-8, no NaN, not endless."""

import json
from pathlib import Path
from typing import Any

from oss_lab.errors import LabError


def read_json(path: Path) -> Any:
    """The JSON value in a file.

    Raises:
        LabError: why there is none, as the end of a sentence that begins with the file.
        OSError: the file cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise LabError("not UTF-8 text") from None
    except RecursionError:
        raise LabError("nested too deeply") from None
    except ValueError as error:  # malformed, or an integer of more than 4300 digits
        raise LabError(f"not JSON: {error}") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")  # Python would read NaN and Infinity

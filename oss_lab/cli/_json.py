"""JSON files that a person names on the command line, read strictly: UTF-8, no NaN, not endless."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from oss_lab.errors import LabError


def read_json(path: Path) -> Any:
    """The JSON value in a file.

    Raises:
        LabError: why it has no value, as the end of a sentence that begins with the file.
        OSError: the file cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError:
        raise LabError("not UTF-8 text") from None
    except RecursionError:
        raise LabError("nested too deeply") from None
    except ValueError as error:  # malformed, or an integer of more than 4300 digits
        raise LabError(f"not JSON: {error}") from None


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Begin the sentence of every error inside with the file."""
    try:
        yield
    except LabError as error:
        raise LabError(f"{path}: {error}") from None
    except OSError as error:
        raise LabError(f"{path}: {error.strerror or error}") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")  # Python would read NaN and Infinity

"""Strict reading of the JSON files that a user names on the command line: UTF-8 and no NaN.

The name `-` is standard input.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from oss_lab.cli._options import read_standard_input
from oss_lab.errors import LabError


def read_json(path: Path) -> Any:
    """Read the JSON value in a file.

    Raises:
        LabError: the content is not valid; the message continues a sentence that begins with the
            file's name.
        OSError: the file cannot be read.
    """
    try:
        text = read_standard_input() if str(path) == "-" else path.read_text(encoding="utf-8")
        return json.loads(text, parse_constant=_refuse)
    except UnicodeDecodeError:
        raise LabError("not UTF-8 text") from None
    except RecursionError:
        raise LabError("JSON nested too deeply") from None
    except ValueError as error:  # malformed, or an integer of more than 4300 digits
        raise LabError(f"not JSON: {error}") from None


@contextmanager
def prefix_errors(path: Path) -> Iterator[None]:
    """Put the file's name in front of the message of every error raised inside."""
    name = name_file(path)
    try:
        yield
    except LabError as error:
        raise LabError(f"{name}: {error}") from None
    except OSError as error:
        raise LabError(f"{name}: {error.strerror or error}") from None


def name_file(path: Path) -> str:
    """The name of a file in a message."""
    return "standard input" if str(path) == "-" else str(path)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")  # Python's default accepts NaN and Infinity

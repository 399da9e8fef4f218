"""Read rows of CSV and JSONL files, each with its line number for error messages."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oss_lab.checkpoint.fields import parse_object
from oss_lab.errors import LabError


def read_csv_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield (`FILE, line N`, cells) for each row that is not blank; a row may span several lines.

    Raises:
        LabError: the file is not CSV, or not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    reader = csv.reader(io.StringIO(text, newline=""))
    begin = 1
    try:
        for cells in reader:
            if cells:
                yield f"{path}, line {begin}", cells
            begin = reader.line_num + 1
    except csv.Error as error:
        raise LabError(f"{path}, line {begin} is not CSV: {error}") from None


def read_csv_records(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (place, cells by column) for each row below the header, with names in lower case."""
    rows = read_csv_rows(path)
    _, header = next(rows, ("", []))
    columns = [name.strip().lower() for name in header]
    for place, cells in rows:
        if len(cells) != len(columns):
            raise LabError(f"{place} has {len(cells)} cells; the header names {len(columns)}")
        yield place, dict(zip(columns, cells, strict=True))


def read_jsonl_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, fields) for each line that is not blank.

    Raises:
        LabError: a line is not a JSON object.
    """
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            try:
                fields = parse_object(line)
            except ValueError as error:
                raise LabError(f"{path}, line {number} {error}") from None
            yield f"{path}, line {number}", fields


def get_cell(record: dict[str, Any], names: tuple[str, ...], place: str) -> str:
    """The trimmed text of the first of these columns that the record has.

    Numbers of a JSON record are written as in JSON.

    Raises:
        LabError: the record has none of these columns, or the cell is empty.
    """
    for name in names:
        if name in record:
            found = record[name]
            text = found.strip() if isinstance(found, str) else json.dumps(found)
            if not text or found is None:
                raise LabError(f"{place}: {name} is empty")
            return check_unicode(text, f"{place}: {name}")
    raise LabError(f"{place} has no {' or '.join(names)}")


def check_unicode(text: str, where: str) -> str:
    """Return the text unchanged, or raise: JSON can encode half a surrogate pair, UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise LabError(f"{where} has half of a surrogate pair, which is not a character") from None
    return text

"""Read a JSON object field by field, and collect everything that is wrong with it.

A `FieldReader` reads each field once. A field that is missing, has the wrong type or is out of
range becomes a problem that names the field as in the file. So does every field that is not read.
"""

import json
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

REQUIRED: Any = object()
LARGEST_SIZE = 2**31 - 1
LARGEST_NUMBER = 1e30  # far below the limit of float32


class FieldProblem(NamedTuple):
    """One field that cannot be used, and the sentence that says why."""

    field: str
    sentence: str


@dataclass
class FieldReader:
    """The fields of one JSON object that have not been read yet.

    Attributes:
        fields: the object; reading a field removes it.
        problems: the problems so far, in the order of reading.
        prefix: put before the names of nested fields, as in `rope_scaling.factor`.
    """

    fields: dict[str, Any]
    problems: list[FieldProblem]
    prefix: str = ""

    def add_problem(self, field: str, what: str) -> None:
        self.problems.append(FieldProblem(self.prefix + field, f"{self.prefix}{field} {what}"))

    def take(self, field: str, default: Any = REQUIRED) -> Any:
        """Remove and return a value. If absent, return `default`, or report it and return None."""
        if field not in self.fields:
            if default is not REQUIRED:
                return default
            self.add_problem(field, "is missing")
            return None
        return self.fields.pop(field)

    def take_size(self, field: str) -> int | None:
        """Take a positive integer below 2^31; None if there is none."""
        absent = field not in self.fields
        value = self.take(field)
        if absent:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            return self.add_problem(field, f"is {shorten_json(value)}, not an integer")
        if not 0 < value <= LARGEST_SIZE:
            return self.add_problem(
                field, f"is {shorten_json(value)}, not between 1 and {LARGEST_SIZE}"
            )
        return value

    def take_number(
        self, field: str, default: Any = REQUIRED, *, least: float = 0.0
    ) -> float | None:
        """Take a finite number above 0 and at least `least`; None if there is none."""
        absent = field not in self.fields
        value = self.take(field, default)
        if absent:
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            return self.add_problem(field, f"is {shorten_json(value)}, not a number")
        if abs(value) > LARGEST_NUMBER or math.isnan(value):
            return self.add_problem(
                field, f"is {shorten_json(value)}, not a finite number up to {LARGEST_NUMBER:g}"
            )
        if value <= 0 or value < least:
            bound = f"at least {least:g}" if least else "above 0"
            return self.add_problem(field, f"is {shorten_json(value)}; it must be {bound}")
        return float(value)

    def expect(self, field: str, *allowed: Any, required: bool = False) -> None:
        """Take a field that must have one of these values and types; absent means the first."""
        if required and field not in self.fields:
            return self.add_problem(field, "is missing")
        value = self.take(field, allowed[0])
        if not any(type(value) is type(a) and value == a for a in allowed):
            wanted = " or ".join(shorten_json(a) for a in allowed)
            self.add_problem(field, f"is {shorten_json(value)}; only {wanted} is implemented")

    def take_object(self, field: str) -> "FieldReader | None":
        """Take a field that must be a JSON object, as a reader with the same list of problems."""
        absent = field not in self.fields
        value = self.take(field)
        if isinstance(value, dict):
            return FieldReader(dict(value), self.problems, f"{self.prefix}{field}.")
        if not absent:
            self.add_problem(field, f"is {shorten_json(value)}, not a JSON object")
        return None

    def refuse_the_rest(self) -> None:
        """Report every field that was not read, in alphabetical order."""
        for field in sorted(self.fields):
            value = self.fields[field]
            self.add_problem(
                make_printable(field),
                f"is not understood (its value is {shorten_json(value)}) and may change the"
                " arithmetic",
            )


def parse_object(contents: bytes) -> dict[str, Any]:
    """Parse a JSON object from UTF-8. No object in it may have two fields of the same name.

    Raises:
        ValueError: what is wrong. The text continues a sentence that starts with the file's name.
    """
    try:
        value = json.loads(contents.decode(), object_pairs_hook=_refuse_repetition)
    except RepeatedNameError:
        raise
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError("does not contain a JSON object")
    return value


class RepeatedNameError(ValueError):
    """An object has two fields of the same name; a JSON reader would keep only the last."""

    def __init__(self, name: str) -> None:
        super().__init__(f"names {make_printable(name)} twice")
        self.name = name


def _refuse_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set()
        raise RepeatedNameError(next(n for n, _ in pairs if n in seen or seen.add(n)))
    return found


def make_printable(name: str) -> str:
    """A name from a file, safe to print: one line, no control characters, at most 160 long."""
    text = name if name.isprintable() else ascii(name)
    return text if len(text) <= 160 else text[:157] + "..."


def shorten_json(value: Any) -> str:
    """A value as JSON, in ASCII and on one line, cut to 60 characters."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."

"""Reading a JSON object field by field, collecting everything that is wrong with it.

A `FieldReader` is asked for each field once; whatever is missing, of another type or out of range
becomes a problem that names the field as it stands in the file, and so does what nobody asked for.
"""

import json
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

REQUIRED: Any = object()
LARGEST_SIZE = 2**31 - 1
LARGEST_NUMBER = 1e30  # far from float32's own limit


class Problem(NamedTuple):
    """One field that cannot be used, and the sentence that says why."""

    field: str
    sentence: str


@dataclass
class FieldReader:
    """The fields of one JSON object that have not been read yet.

    Attributes:
        fields: the object; reading a field takes it out.
        problems: what was wrong so far, in the order of reading.
        prefix: put before the names of nested fields, as in `rope_scaling.factor`.
    """

    fields: dict[str, Any]
    problems: list[Problem]
    prefix: str = ""

    def complain(self, field: str, what: str) -> None:
        self.problems.append(Problem(self.prefix + field, f"{self.prefix}{field} {what}"))

    def take(self, field: str, default: Any = REQUIRED) -> Any:
        """Take the value out; where it is absent return `default`, or complain and return None."""
        if field not in self.fields:
            if default is not REQUIRED:
                return default
            self.complain(field, "is missing")
            return None
        return self.fields.pop(field)

    def size(self, field: str) -> int | None:
        """Take a positive whole number below 2^31; None where there is none."""
        absent = field not in self.fields
        value = self.take(field)
        if absent:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            return self.complain(field, f"is {shown(value)}, not a whole number")
        if not 0 < value <= LARGEST_SIZE:
            return self.complain(field, f"is {shown(value)}, not between 1 and {LARGEST_SIZE}")
        return value

    def number(self, field: str, default: Any = REQUIRED, *, least: float = 0.0) -> float | None:
        """Take a finite number above 0 and not below `least`; None where there is none."""
        absent = field not in self.fields
        value = self.take(field, default)
        if absent:
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            return self.complain(field, f"is {shown(value)}, not a number")
        if abs(value) > LARGEST_NUMBER or math.isnan(value):
            return self.complain(field, f"is {shown(value)}, not a finite number of use")
        if value <= 0 or value < least:
            bound = f"at least {least:g}" if least else "above 0"
            return self.complain(field, f"is {shown(value)}; it must be {bound}")
        return float(value)

    def expect(self, field: str, *allowed: Any, required: bool = False) -> None:
        """Take a field that must have one of these values and types; absent is the first one."""
        if required and field not in self.fields:
            return self.complain(field, "is missing")
        value = self.take(field, allowed[0])
        if not any(type(value) is type(a) and value == a for a in allowed):
            wanted = " or ".join(shown(a) for a in allowed)
            self.complain(field, f"is {shown(value)}; only {wanted} is implemented")

    def nested(self, field: str) -> "FieldReader | None":
        """Take a field that must be a JSON object, as a reader that adds to the same problems."""
        absent = field not in self.fields
        value = self.take(field)
        if isinstance(value, dict):
            return FieldReader(dict(value), self.problems, f"{self.prefix}{field}.")
        if not absent:
            self.complain(field, f"is {shown(value)}, not a JSON object")
        return None

    def refuse_the_rest(self) -> None:
        """Complain about every field that was not read, in alphabetical order."""
        for field in sorted(self.fields):
            value = self.fields[field]
            self.complain(
                printable(field),
                f"is not understood (its value is {shown(value)}) and may change the arithmetic",
            )


def parse_object(contents: bytes) -> dict[str, Any]:
    """Read a JSON object, UTF-8 as JSON is, in which no object names a field twice.

    Raises:
        ValueError: why it cannot be read, as the end of a sentence that begins with the file.
    """
    try:
        value = json.loads(contents.decode(), object_pairs_hook=_without_repetition)
    except RepeatedNameError:
        raise
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError("does not hold a JSON object")
    return value


class RepeatedNameError(ValueError):
    """An object with two entries of one name, of which a JSON reader would keep the last."""

    def __init__(self, name: str) -> None:
        super().__init__(f"names {printable(name)} twice")
        self.name = name


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set()
        raise RepeatedNameError(next(n for n, _ in pairs if n in seen or seen.add(n)))
    return found


def printable(name: str) -> str:
    """A name out of a file as it may be printed: one line, no control characters, not endless."""
    text = name if name.isprintable() else ascii(name)
    return text if len(text) <= 160 else text[:157] + "..."


def shown(value: Any) -> str:
    """Spell a value as in JSON, in ASCII and on one line, cut after 60 characters."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."

"""Turn what a tool returned into text for the model.

Text stays text. Everything else becomes JSON: numbers, lists, dictionaries, dataclasses, pydantic
models, dates, arrays. An object without a JSON form is an error, not its `repr`.
"""

from collections.abc import Iterator
from typing import Any

import pydantic_core

from oss_lab.agents.arguments import CallError
from oss_lab.errors import explain_error

LONGEST = 32_000  # characters of an output


def to_text(value: object) -> str:
    """The text of a tool's result.

    >>> to_text({"sum": 7, "exact": True})
    '{"sum":7,"exact":true}'
    >>> to_text("7")
    '7'

    Raises:
        CallError: the result has no JSON form.
    """
    if isinstance(value, str):
        return mend_text(value)
    if isinstance(value, Iterator):  # it may never end
        kind = type(value).__name__
        raise CallError(f"the tool returned a value that is neither text nor JSON ({kind})")
    try:
        return pydantic_core.to_json(value, fallback=_to_plain).decode()
    except Exception as error:  # the result may be any object
        kind = type(value).__name__
        raise CallError(
            f"the tool returned a value that is neither text nor JSON ({kind};"
            f" {explain_error(error, 120)})"
        ) from None


def _to_plain(value: Any) -> Any:
    """Arrays and numbers of NumPy and torch as lists and numbers."""
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def mend_text(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair, which cannot be tokenized."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def shorten_output(text: str, longest: int = LONGEST) -> tuple[str, int]:
    """The text cut to `longest` characters with a remark, and how many characters were cut."""
    cut = len(text) - longest
    if cut <= 0:
        return text, 0
    return f"{text[:longest]}\n[{cut:,} more characters were cut]", cut

"""Prints what a conversation loses (`HarmonyWarning`) as one line each, each text once."""

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from oss_lab.cli._visible import escape_controls
from oss_lab.errors import HarmonyWarning

T = TypeVar("T")


@contextmanager
def report_warnings(write: Callable[[str], None]) -> Iterator[None]:
    """Give the text of each `HarmonyWarning` raised inside to `write`; others are raised again."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", HarmonyWarning)
        try:
            yield
        finally:
            found = list(caught)
            texts = [str(each.message) for each in found if each.category is HarmonyWarning]
            for text in dict.fromkeys(texts):
                write(text)
    for each in found:
        if each.category is not HarmonyWarning:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def report_each(steps: Iterable[T], write: Callable[[str], None]) -> Iterator[T]:
    """The steps, with the warnings of each reported before it."""
    waiting = iter(steps)
    while True:
        with report_warnings(write):
            try:
                step = next(waiting)
            except StopIteration:
                return
        yield step


def print_warning(text: str, prefix: str = "") -> None:
    """Print one line on stderr, with control characters escaped."""
    line = f"oss-lab: warning: {prefix}{' '.join(text.splitlines())}"
    if sys.stderr is not None:  # if it is closed, print would write to stdout
        print(escape_controls(line, sys.stderr.encoding), file=sys.stderr)

"""A progress bar for work that takes more than two seconds, in a terminal and in a notebook.

Where standard error is a file or a pipe, `report_in_lines` prints lines instead.

Set TQDM_DISABLE=1 (tqdm's own environment variable) to turn it off. Stored notebooks need that: a
busy machine would otherwise add bars to their outputs.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm.auto import tqdm

DELAY = 2  # seconds
LINES = 30.0  # seconds between two lines
Item = TypeVar("Item")


def is_turned_off() -> bool:
    """Whether TQDM_DISABLE turns progress off, or there is no standard error to show it on."""
    return os.environ.get("TQDM_DISABLE", "") not in ("", "0") or sys.stderr is None


def track_progress(
    items: Iterable[Item],
    what: str,
    unit: str = "step",
    *,
    leave: bool = False,
    total: int | None = None,
    done: int = 0,
) -> "tqdm[Item]":
    """Iterate over the items with a bar labeled `what`; it disappears at the end unless `leave`.

    Args:
        total: how many there are, if the items do not say so, with those `done` before.
    """
    # None: only in a terminal or a notebook.
    return tqdm(
        items,
        desc=what,
        unit=unit,
        total=total,
        initial=done,
        delay=DELAY,
        leave=leave,
        disable=True if is_turned_off() else None,
    )


@contextmanager
def report_in_lines(describe: Callable[[], str], seconds: float = LINES) -> Iterator[None]:
    """Where a bar cannot be drawn, print `describe()` on stderr: after DELAY, then every `seconds`.

    A thread prints, so a line appears even while the work has nothing to report.
    """
    if is_turned_off() or sys.stderr.isatty():
        yield
        return
    ended = threading.Event()

    def print_lines() -> None:
        wait = DELAY
        while not ended.wait(wait):
            print(describe(), file=sys.stderr, flush=True)
            wait = seconds

    thread = threading.Thread(target=print_lines, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()

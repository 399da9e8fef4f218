"""A progress bar for work that takes more than two seconds, in a terminal and in a notebook.

Set TQDM_DISABLE=1 (tqdm's own environment variable) to turn it off. Stored notebooks need that: a
busy machine would otherwise add bars to their outputs.
"""

import os
from collections.abc import Iterable
from typing import TypeVar

from tqdm.auto import tqdm

DELAY = 2  # seconds
Item = TypeVar("Item")


def track_progress(
    items: Iterable[Item], what: str, unit: str = "step", *, leave: bool = False
) -> "tqdm[Item]":
    """Iterate over the items with a bar labeled `what`; it disappears at the end unless `leave`."""
    is_silent = os.environ.get("TQDM_DISABLE", "") not in ("", "0")
    # None: only in a terminal or a notebook.
    return tqdm(
        items, desc=what, unit=unit, delay=DELAY, leave=leave, disable=True if is_silent else None
    )

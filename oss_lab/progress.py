"""Progress of work that takes more than two seconds, on a terminal and in a notebook.

TQDM_DISABLE=1 in the environment, tqdm's own variable, leaves it out: a stored notebook should not
hold a bar that came only because the machine was busy.
"""

import os
from collections.abc import Iterable
from typing import TypeVar

from tqdm.auto import tqdm

DELAY = 2  # seconds
Item = TypeVar("Item")


def progress(
    items: Iterable[Item], what: str, unit: str = "step", *, leave: bool = False
) -> "tqdm[Item]":
    """The items, with a bar that names the work and disappears behind it, unless it should stay."""
    silent = os.environ.get("TQDM_DISABLE", "") not in ("", "0")
    # None: on a terminal or in a notebook only.
    return tqdm(
        items, desc=what, unit=unit, delay=DELAY, leave=leave, disable=True if silent else None
    )

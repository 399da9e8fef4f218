"""Python warnings about the parts of a conversation that the model does not see as given.

The warning names the caller's line, outside oss_lab. Python shows each text once per line.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

from oss_lab.errors import HarmonyWarning

_PACKAGE = str(Path(__file__).parents[1]) + os.sep


def warn(sentences: Iterable[str], category: type[Warning] = HarmonyWarning) -> None:
    """Warn with each sentence, by default as a `HarmonyWarning`."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    for sentence in sentences:
        warnings.warn(sentence, category, stacklevel=level)

"""The types that a prompt may have, and the conversion of token ids to a list."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from oss_lab.errors import LabError
from oss_lab.harmony.messages import Conversation
from oss_lab.harmony.prompt import Question, is_messages, shorten_repr
from oss_lab.hooks.selection import is_integer
from oss_lab.record.reply import Reply

Prompt = Reply | Question | Sequence[int] | Tensor | NDArray[np.integer]
"""A reply (with its prompt), a question, a conversation, messages, or token ids."""


def is_rendered_text(of: object) -> bool:
    """Whether `of` is text or messages, which are rendered as in a chat."""
    return isinstance(of, str | Conversation) or is_messages(of)


def list_ids(given: Any) -> list[int]:
    """Convert token ids [n] or [1, n] from a list, array, series or tensor to a list.

    Raises:
        LabError: they are not token ids.
    """
    values: Any = given
    if isinstance(given, list | tuple) and len(given) == 1 and getattr(given[0], "ndim", 0) == 1:
        values = given[0]
    if hasattr(values, "__array__"):  # from torch, NumPy, pandas or xarray
        values = values.tolist() if hasattr(values, "tolist") else np.asarray(values).tolist()
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise LabError(
            f"expected text, a conversation, a reply or token ids, got {shorten_repr(given)}"
        )
    if len(values) == 1 and isinstance(values[0], Sequence) and not isinstance(values[0], str):
        values = values[0]
    if wrong := [each for each in values if not is_integer(each)]:
        raise LabError(f"expected token ids or text, got {shorten_repr(wrong[0])} among the ids")
    return [int(each) for each in values]

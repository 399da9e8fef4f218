"""What a person may give as a prompt, and token ids of any library as a list."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from oss_lab.errors import LabError
from oss_lab.harmony.messages import Conversation
from oss_lab.harmony.prompt import Question, is_messages, shown
from oss_lab.hooks.selection import is_integer
from oss_lab.record.reply import Reply

Prompt = Reply | Question | Sequence[int] | Tensor | NDArray[np.integer]
"""A reply (with its prompt), a question, a conversation, messages, or token ids."""


def is_rendered_text(of: object) -> bool:
    """Whether it is text or messages, which a chat renders."""
    return isinstance(of, str | Conversation) or is_messages(of)


def ids_of(given: Any) -> list[int]:
    """Token ids [n] or [1, n] as a list: of a list, NumPy array or tensor.

    Raises:
        LabError: they are not ids.
    """
    values = given.tolist() if isinstance(given, Tensor | np.ndarray) else given
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise LabError(f"expected text, a conversation, a reply or token ids, got {shown(given)}")
    if len(values) == 1 and isinstance(values[0], Sequence) and not isinstance(values[0], str):
        values = values[0]
    if wrong := [each for each in values if not is_integer(each)]:
        raise LabError(f"expected token ids or text, got {shown(wrong[0])} among the ids")
    return [int(each) for each in values]

"""The text that two labs are compared on: questions with replies, cut to a length."""

from collections.abc import Sequence

from oss_lab.errors import LabError
from oss_lab.lab.workbench import Lab

QUESTION = "What is 347 * 62?"
LENGTHS = (28, 33, 129, 300)  # in nano: below the window and above it, and above the first context


def example_ids(lab: Lab) -> list[int]:
    """A text to compare labs on: two questions with this lab's replies, one after the other."""
    questions = QUESTION, "What is 34 + 51 + 27 + 83 + 12?"
    return [id for each in questions for id in lab.tokens_of(lab.chat(each, effort="high"))]


def take_prefix(ids: Sequence[int], length: int) -> list[int]:
    if not 1 <= length <= len(ids):
        raise LabError(
            f"length is {length}; it must be 1 to {len(ids)}, the length of the text: give a longer"
            " text as `of`"
        )
    return list(ids[:length])

"""Questions with four choices, such as those of GPQA and MMLU.

The wording is that of gpt_oss/evals/gpqa_eval.py in openai/gpt-oss.
"""

from collections.abc import Sequence

from oss_lab.evaluation.grade import Choice
from oss_lab.evaluation.question import FileQuestion

LETTERS = "ABCD"
REQUEST = "Express your final answer as the corresponding option 'A', 'B', 'C', or 'D'."


def make_choice_question(name: str, text: str, choices: Sequence[str], right: int) -> FileQuestion:
    """A question with four choices; `right` is the index of the correct one."""
    listed = "\n".join(f"({letter}) {c}" for letter, c in zip(LETTERS, choices, strict=True))
    return FileQuestion(name, f"{text}\n\n{listed}\n\n{REQUEST}", Choice(LETTERS[right]))

"""GPQA: graduate-level questions with four choices (arXiv:2311.12022).

Reads gpqa_diamond.csv, gpqa_main.csv and gpqa_extended.csv as published, with the columns
`Question`, `Correct Answer` and `Incorrect Answer 1` to `3`. `High-level domain` names the row of
the score table; other columns are ignored. The choices are shuffled with a seed that is made from
the question's text, so a question looks the same in every run.
"""

from pathlib import Path
from random import Random

from oss_lab.errors import LabError
from oss_lab.evaluation.choices import make_choice_question
from oss_lab.evaluation.question import FileQuestion
from oss_lab.evaluation.rows import get_cell, read_csv_records

COLUMNS = ("correct answer", *(f"incorrect answer {n}" for n in (1, 2, 3)))
DOMAIN = "high-level domain"


def read_gpqa(path: Path) -> list[FileQuestion]:
    """The questions of a file, named by their domain if the file has that column.

    Raises:
        LabError: the first defect of the file, with its line number.
        OSError: the file cannot be read.
    """
    questions = []
    for place, record in read_csv_records(path):
        text = get_cell(record, ("question",), place)
        choices = [get_cell(record, (column,), place) for column in COLUMNS]
        order = Random(text).sample(range(4), 4)
        shuffled = [choices[n] for n in order]
        name = (record.get(DOMAIN) or "").strip() or path.stem
        questions.append(make_choice_question(name, text, shuffled, order.index(0)))
    if not questions:
        raise LabError(f"{path} has no questions; a GPQA file has one row per question")
    return questions

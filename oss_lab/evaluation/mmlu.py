"""MMLU: multiple choice in 57 subjects (arXiv:2009.03300).

Reads the `*_test.csv` files of the authors' archive (github.com/hendrycks/test). They have no
header; a row has a question, four choices and the letter of the right one. For a folder, all its
`*_test.csv` files are read, or those in its `test` folder. The file's name is the subject. No
examples are shown before a question.
"""

from pathlib import Path

from oss_lab.errors import LabError
from oss_lab.evaluation.choices import LETTERS, make_choice_question
from oss_lab.evaluation.question import FileQuestion
from oss_lab.evaluation.rows import read_csv_rows

PATTERN = "*_test.csv"


def read_mmlu(path: Path) -> list[FileQuestion]:
    """The questions of a file or a folder, by subject.

    Raises:
        LabError: the folder has no such file, or the first defect of a file with its line number.
        OSError: a file cannot be read.
    """
    if not path.is_dir():
        return read_subject(path)
    files = sorted(path.glob(PATTERN)) or sorted((path / "test").glob(PATTERN))
    if not files:
        raise LabError(f"{path} has no {PATTERN}, and neither has its test/; name MMLU's folder")
    return [question for file in files for question in read_subject(file)]


def read_subject(file: Path) -> list[FileQuestion]:
    """The questions of one subject."""
    subject = file.stem.removesuffix("_test").replace("_", " ")
    questions = []
    for place, cells in read_csv_rows(file):
        if len(cells) != 6:
            wanted = "a question, four choices and a letter"
            raise LabError(f"{place} has {len(cells)} cells; it must have six: {wanted}")
        text, *choices, letter = (each.strip() for each in cells)
        if letter not in tuple(LETTERS):
            raise LabError(f"{place}: the answer is {letter[:40]!r}, not one of A, B, C and D")
        questions.append(make_choice_question(subject, text, choices, LETTERS.index(letter)))
    if not questions:
        raise LabError(f"{file} has no questions; an MMLU file has one row per question")
    return questions

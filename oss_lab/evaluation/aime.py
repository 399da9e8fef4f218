"""AIME: competition problems whose answers are whole numbers from 0 to 999.

Reads JSONL or CSV with the columns `answer` and `question` or `problem`, in upper or lower case.
Other columns are ignored. These files have that form: opencompass/AIME2025 (aime2025-I.jsonl),
Maxwell-Jia/AIME_2024 and AIME_Dataset_1983_2024.csv. A unit after the answer is ignored, as in the
`336^\\circ` of 2025. The request is that of gpt_oss/evals/aime_eval.py in openai/gpt-oss.
"""

import re
from pathlib import Path

from oss_lab.errors import LabError
from oss_lab.evaluation.grade import Boxed
from oss_lab.evaluation.question import FileQuestion
from oss_lab.evaluation.rows import get_cell, read_csv_records, read_jsonl_records

REQUEST = r"Please reason step by step, and put your final answer within \boxed{}."
ANSWER = re.compile(r"([0-9]{1,3})(?:\.0+)?(?![0-9.,]).*", re.DOTALL)


def read_aime(path: Path) -> list[FileQuestion]:
    """The problems of a file; each one's `name` is the file's.

    Raises:
        LabError: the first defect of the file, with its line number.
        OSError: the file cannot be read.
    """
    records = read_csv_records(path) if path.suffix.lower() == ".csv" else read_jsonl_records(path)
    questions = []
    for place, fields in records:
        record = {name.lower(): value for name, value in fields.items()}
        text = get_cell(record, ("question", "problem"), place)
        answer = get_cell(record, ("answer",), place)
        if not (match := ANSWER.fullmatch(answer)):
            raise LabError(
                f"{place}: expected a whole number from 0 to 999 as the answer, got {answer[:40]!r}"
            )
        questions.append(FileQuestion(path.stem, f"{text}\n{REQUEST}", Boxed(int(match[1]))))
    if not questions:
        raise LabError(f"{path} has no problems; an AIME file has one row per problem")
    return questions

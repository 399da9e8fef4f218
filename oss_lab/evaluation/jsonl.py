"""Your own questions: one JSON object per line.

    {"prompt": "What is 6 * 7?", "answer": 42}
    {"prompt": "What is it in Oslo?", "answer": "9", "developer": "Answer with the number alone.",
     "name": "weather", "tools": [{"name": "temperature", "description": "degrees in a city",
     "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}, "result": "9"}]}

(The second object is wrapped here; in the file it is one line.) `name` is the row of the score
table that a question counts toward, by default the file's name. Every call to a tool gets its
`result`, whatever the arguments; a call to a tool without a `result` ends the reply. Nothing is
executed. Blank lines are skipped, and unknown fields are an error.
"""

import math
import re
from pathlib import Path
from typing import Any

from oss_lab.checkpoint.fields import make_printable
from oss_lab.errors import LabError
from oss_lab.evaluation.grade import WrittenAnswer
from oss_lab.evaluation.question import FileQuestion, Tool
from oss_lab.evaluation.rows import check_unicode, read_jsonl_records
from oss_lab.harmony.messages import ToolDescription

KEYS = ("prompt", "answer", "name", "developer", "tools")
TOOL_KEYS = ("name", "description", "parameters", "result")
TOOL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


def read_jsonl(path: Path) -> list[FileQuestion]:
    """The questions of a file.

    Raises:
        LabError: the first defect of the file, with its line number.
        OSError: the file cannot be read.
    """
    questions = []
    for place, fields in read_jsonl_records(path):
        try:
            questions.append(build_question(fields, path.stem))
        except LabError as error:
            raise LabError(f"{place}: {error}") from None
    if not questions:
        raise LabError(
            f'{path} has no questions; give it lines of {{"prompt": ..., "answer": ...}}'
        )
    return questions


def build_question(fields: dict[str, Any], name: str) -> FileQuestion:
    """The question of one line; `name` is used if the line has none."""
    check_fields(fields, KEYS, "the question")
    for key in ("prompt", "answer"):
        if key not in fields:
            raise LabError(f"the question has no {key}")
    tools = get_optional(fields, "tools", list, "a list") or []
    read_tools = tuple(build_tool(item, f"tools[{place}]") for place, item in enumerate(tools))
    names = [each.description.name for each in read_tools]
    if len(set(names)) < len(names):
        repeated = next(each for each in names if names.count(each) > 1)
        raise LabError(f"two tools are called {repeated}; give each tool a different name")
    return FileQuestion(
        name=get_optional(fields, "name", str, "a string") or name,
        text=require_text(fields["prompt"], "prompt"),
        answer=WrittenAnswer(require_answer(fields["answer"])),
        developer=get_optional(fields, "developer", str, "a string"),
        tools=read_tools,
    )


def build_tool(fields: Any, where: str) -> Tool:
    """One of the tools of a question."""
    if not isinstance(fields, dict):
        raise LabError(f"{where} is not an object")
    check_fields(fields, TOOL_KEYS, where)
    name = fields.get("name")
    if not isinstance(name, str) or not TOOL_NAME.fullmatch(name):
        raise LabError(f"{where} needs a name of at most 64 letters, digits, _ and -")
    description = get_optional(fields, "description", str, "a string", where) or ""
    parameters = get_optional(fields, "parameters", dict, "a JSON schema (an object)", where)
    result = get_optional(fields, "result", str, "a string", where)
    return Tool(ToolDescription(name, description, parameters), result)


def check_fields(fields: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    """Raise LabError for a field that is not in `known`."""
    for key in fields:
        if key not in known:
            what = f"has an unknown field {make_printable(key)!r}"
            raise LabError(f"{where} {what}; the known fields are {', '.join(known)}")


def get_optional(fields: dict[str, Any], key: str, kind: type, words: str, where: str = "") -> Any:
    """The value of a field, checked to be of type `kind`; None if it is absent or null."""
    value, place = fields.get(key), f"{where}.{key}" if where else key
    if value is not None and not isinstance(value, kind):
        raise LabError(f"{place} must be {words}")
    return check_unicode(value, place) if isinstance(value, str) else value


def require_text(value: Any, where: str) -> str:
    """A text, unchanged; it must not be blank."""
    if not isinstance(value, str) or not value.strip():
        raise LabError(f"{where} must be a non-empty string")
    return check_unicode(value, where)


def require_answer(value: Any) -> str:
    """The right answer as text; numbers are written as Python writes them."""
    if type(value) in (int, float) and math.isfinite(value):  # a bool is an int to Python
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise LabError("answer must be a number or a non-empty string")
    return check_unicode(value, "answer")

"""A person's own questions: one JSON object a line.

    {"prompt": "What is 6 * 7?", "answer": 42}
    {"prompt": "What is it in Oslo?", "answer": "9", "developer": "Answer with the number alone.",
     "name": "weather", "tools": [{"name": "temperature", "description": "degrees in a city",
     "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}, "result": "9"}]}

(here the second is broken over lines.) `name` is the row of the table that a question counts
toward, by default the file's. A tool's `result` is what its calls get, whatever their arguments; a
call to a tool without one ends the reply. Nothing is executed, blank lines are skipped, and what is
not understood is refused.
"""

import math
import re
from pathlib import Path
from typing import Any

from oss_lab.checkpoint.fields import printable
from oss_lab.errors import LabError
from oss_lab.evaluation.grade import Written
from oss_lab.evaluation.question import FileQuestion, Tool
from oss_lab.evaluation.rows import jsonl_records, unicode_text
from oss_lab.harmony.messages import ToolDescription

KEYS = ("prompt", "answer", "name", "developer", "tools")
TOOL_KEYS = ("name", "description", "parameters", "result")
TOOL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


def read(path: Path) -> list[FileQuestion]:
    """The questions of a file.

    Raises:
        LabError: the file's first defect, with its line.
        OSError: the file cannot be read.
    """
    questions = []
    for place, fields in jsonl_records(path):
        try:
            questions.append(question(fields, path.stem))
        except LabError as error:
            raise LabError(f"{place}: {error}") from None
    if not questions:
        raise LabError(
            f'{path} has no questions; give it lines of {{"prompt": ..., "answer": ...}}'
        )
    return questions


def question(fields: dict[str, Any], name: str) -> FileQuestion:
    """The question of one line; `name` where the line has none."""
    only(fields, KEYS, "it")
    for key in ("prompt", "answer"):
        if key not in fields:
            raise LabError(f"it has no {key}")
    tools = optional(fields, "tools", list, "a list") or []
    read_tools = tuple(tool(item, f"tools[{place}]") for place, item in enumerate(tools))
    names = [each.description.name for each in read_tools]
    if len(set(names)) < len(names):
        twice = next(each for each in names if names.count(each) > 1)
        raise LabError(f"two tools are called {twice}; give each a name of its own")
    return FileQuestion(
        name=optional(fields, "name", str, "a text") or name,
        text=full_text(fields["prompt"], "prompt"),
        answer=Written(answer_text(fields["answer"])),
        developer=optional(fields, "developer", str, "a text"),
        tools=read_tools,
    )


def tool(fields: Any, where: str) -> Tool:
    """One of the tools of a question."""
    if not isinstance(fields, dict):
        raise LabError(f"{where} is not an object")
    only(fields, TOOL_KEYS, where)
    name = fields.get("name")
    if not isinstance(name, str) or not TOOL_NAME.fullmatch(name):
        raise LabError(f"{where} needs a name of letters, digits, _ and -, at most 64 of them")
    description = optional(fields, "description", str, "a text", where) or ""
    parameters = optional(fields, "parameters", dict, "a JSON schema, an object", where)
    result = optional(fields, "result", str, "a text", where)
    return Tool(ToolDescription(name, description, parameters), result)


def only(fields: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    """Refuse fields that are not known."""
    for key in fields:
        if key not in known:
            what = f"has a field {printable(key)!r}, which is not understood"
            raise LabError(f"{where} {what}; there are {', '.join(known)}")


def optional(fields: dict[str, Any], key: str, kind: type, words: str, where: str = "") -> Any:
    """The value of a field, which must be of this kind; None where it is absent or null."""
    value, place = fields.get(key), f"{where}.{key}" if where else key
    if value is not None and not isinstance(value, kind):
        raise LabError(f"{place} must be {words}")
    return unicode_text(value, place) if isinstance(value, str) else value


def full_text(value: Any, where: str) -> str:
    """A text that is not blank, as it stands."""
    if not isinstance(value, str) or not value.strip():
        raise LabError(f"{where} must be a text that is not empty")
    return unicode_text(value, where)


def answer_text(value: Any) -> str:
    """The right answer as text; numbers are spelt as in Python."""
    if type(value) in (int, float) and math.isfinite(value):  # a bool is an int to Python
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise LabError("answer must be a number, or a text that is not empty")
    return unicode_text(value, "answer")

"""What an answer must look like: a JSON schema, a regular expression or a Lark grammar.

A JSON schema is also shown to the model, in the section `# Response Formats` of the developer
message. Harmony has no such section for the other two: describe them in your instructions.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llguidance import LLMatcher

from oss_lab.errors import LabError
from oss_lab.grammar.lark import check_lark
from oss_lab.grammar.schema import write_json_grammar
from oss_lab.harmony.messages import ResponseFormat
from oss_lab.harmony.prompt import shorten_repr

NAME = "answer"  # of a schema without a title
ANY_TEXT = r"(?s:.*)"
_NAME_CHARACTERS = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class Regex:
    """The whole answer matches a regular expression (the syntax of Rust's regex, no look-around).

    >>> Regex(r"(yes|no)(, because [a-z ]{1,40})?").pattern
    '(yes|no)(, because [a-z ]{1,40})?'
    """

    pattern: str


@dataclass(frozen=True)
class Lark:
    """The answer is a text of a grammar in llguidance's form of Lark, whose first rule is `start`.

    >>> print(Lark('start: NUMBER ("+" NUMBER)*\\nNUMBER: /[0-9]{1,3}/').grammar)
    start: NUMBER ("+" NUMBER)*
    NUMBER: /[0-9]{1,3}/
    """

    grammar: str


ResponseForm = type | Mapping[str, Any] | ResponseFormat | Regex | Lark
"""A pydantic model class, a JSON schema, or one of the classes named here."""


def find_response_format(given: object) -> ResponseFormat | None:
    """The schema that the model is shown, with its name; None if there is no schema.

    The fields of a pydantic class are the only keys that its answer may have, unless the class
    allows others.

    Raises:
        LabError: it is none of the forms.
    """
    if given is None or isinstance(given, Regex | Lark):
        return None
    if isinstance(given, ResponseFormat):
        return given
    if isinstance(given, Mapping):
        if given.get("type") in ("json_schema", "json_object"):
            raise LabError(
                "response_format: expected the JSON schema itself, got OpenAI's form of a request"
            )
        schema, title = dict(given), given.get("title")
    elif isinstance(given, type) and callable(write := getattr(given, "model_json_schema", None)):
        schema, title = close_objects(write()), given.__name__
    else:
        raise LabError(
            "response_format: expected a pydantic model class, a JSON schema, or Regex(...) or"
            f" Lark(...) from oss_lab.grammar, got {shorten_repr(given)}"
        )
    name = _NAME_CHARACTERS.sub("_", title).strip("_") if isinstance(title, str) else ""
    description = schema.get("description")
    return ResponseFormat(
        name or NAME, schema, description if isinstance(description, str) else None
    )


def close_objects(schema: Any) -> Any:
    """The same schema without other keys in its objects, where it does not mention them."""
    if isinstance(schema, list):
        return [close_objects(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    closed = {key: close_objects(each) for key, each in schema.items()}
    if closed.get("type") == "object" and isinstance(closed.get("properties"), Mapping):
        closed.setdefault("additionalProperties", False)
    return closed


def write_answer_grammar(given: object) -> tuple[str, str]:
    """llguidance's grammar of the answer, and what it is called in an error.

    Raises:
        LabError: the format cannot be used.
    """
    if isinstance(given, Regex):
        return LLMatcher.grammar_from_regex(_require_text("Regex", given.pattern)), "the Regex"
    if isinstance(given, Lark):
        check_lark(_require_text("Lark", given.grammar))
        return LLMatcher.grammar_from_lark(given.grammar), "the Lark grammar"
    section = find_response_format(given)
    if section is None:
        return LLMatcher.grammar_from_regex(ANY_TEXT), "the answer"
    return write_json_grammar(section.schema), "the schema"


def _require_text(kind: str, given: object) -> str:
    if not isinstance(given, str):
        raise LabError(f"{kind}: expected text, got {shorten_repr(given)}")
    return given

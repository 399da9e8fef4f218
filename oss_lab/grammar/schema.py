"""A JSON schema as a grammar: the white space between its values, and what is refused.

llguidance refuses each keyword that it cannot express. Two kinds of schema pass it and are refused
here: a schema that only an infinite value fits, and multiples that take minutes to compile.
"""

import json
from collections.abc import Mapping
from typing import Any

from llguidance import LLMatcher

from oss_lab.errors import LabError
from oss_lab.grammar.finite import find_endless_reference
from oss_lab.grammar.numbers import find_common_multiple, move_exclusive_bounds
from oss_lab.harmony.prompt import shorten_repr

WHITE_SPACE = r"(?: |\n[ ]{0,32})?"
"""Between two parts of a JSON text: a space, or a new line with its indentation. Unlimited space
could fill a reply.
"""

LARGEST_MULTIPLE = 100_000
SETTINGS = "x-guidance"  # llguidance's own keyword


def write_json_grammar(schema: Any) -> str:
    """The grammar of the JSON texts that a schema allows.

    Raises:
        LabError: it is not a JSON schema, or is one of those that are refused here.
    """
    if not isinstance(schema, Mapping):
        raise LabError(
            f'expected a JSON schema such as {{"type": "object"}}, got {shorten_repr(schema)}'
        )
    try:
        settings = {SETTINGS: {"whitespace_pattern": WHITE_SPACE}}
        text = json.dumps({**move_exclusive_bounds(schema), **settings}, allow_nan=False)
        endless = find_endless_reference(schema)
        multiple = find_common_multiple(schema)
    except RecursionError:
        raise LabError("the schema is nested too deeply; shorten it") from None
    except (TypeError, ValueError) as error:
        raise LabError(f"the schema is not JSON: {error}") from None
    if endless is not None:
        raise LabError(
            f"only an infinite value fits the schema, since {endless} requires itself; make one of"
            " its properties optional"
        )
    if multiple > LARGEST_MULTIPLE:
        raise LabError(
            f"the schema's values of multipleOf have the common multiple {multiple:,}, in units of"
            f" their last digit; the limit is {LARGEST_MULTIPLE:,}"
        )
    return LLMatcher.grammar_from_json_schema(text)

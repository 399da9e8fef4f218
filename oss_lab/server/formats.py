"""The response format of a request: text, JSON, or JSON that follows a schema.

Only tokens that fit the format can be sampled in the answer, so `strict` makes no difference. An
answer that is cut at max_tokens may be incomplete.
"""

import re
from collections.abc import Mapping
from typing import Any

from oss_lab.harmony.messages import ResponseFormat
from oss_lab.server.errors import ApiError

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def read_format(given: Mapping[str, Any] | None, param: str) -> dict[str, Any]:
    """The keywords of `Lab.chat` for a response format of either API.

    Raises:
        ApiError: it is not one of the API's; `param` is its field.
    """
    kind = "text" if given is None else given.get("type")
    if given is None or kind == "text":
        return {}
    if kind == "json_object":
        return {"response_format": ResponseFormat("answer", {"type": "object"})}
    # Chat completions put the fields under `json_schema`, responses do not.
    fields = given.get("json_schema", given)
    if kind != "json_schema" or not isinstance(fields, Mapping):
        raise wrong(param, "the type must be text, json_object or json_schema")
    name, schema, description = (fields.get(key) for key in ("name", "schema", "description"))
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise wrong(param, "the name must have 1 to 64 letters, digits, underscores or dashes")
    if not isinstance(schema, dict):
        raise wrong(param, "the schema is missing; give a JSON schema as an object")
    if not isinstance(description, str | None):
        raise wrong(param, "the description must be text")
    return {"response_format": ResponseFormat(name, schema, description)}


def wrong(param: str, sentence: str) -> ApiError:
    return ApiError(400, f"{param}: {sentence}", code="invalid_value", param=param)

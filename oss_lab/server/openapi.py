"""What the OpenAPI document says about request bodies and errors, which our own code reads."""

from typing import Any

from oss_lab.server.chat.request import ChatBody
from oss_lab.server.responses.request import ResponseBody

ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def describe_body(kind: type[ChatBody] | type[ResponseBody]) -> dict[str, Any]:
    """What the OpenAPI document says about an endpoint with this body."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    inlined = inline(schema, definitions)
    body = {"required": True, "content": {"application/json": {"schema": inlined}}}
    return {
        "openapi_extra": {"requestBody": body},
        "responses": describe_errors(400, 401, 404, 408, 413, 429),
    }


def inline(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema with its definitions in place of references to them."""
    if isinstance(schema, dict):
        if name := schema.get("$ref"):
            return inline(definitions[name.rpartition("/")[2]], definitions)
        return {key: inline(value, definitions) for key, value in schema.items()}
    if isinstance(schema, list):
        return [inline(each, definitions) for each in schema]
    return schema


def describe_errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error object, for these statuses."""
    content = {"application/json": {"schema": ERROR}}
    return {
        each: {"description": "The API's error object", "content": content} for each in statuses
    }

"""Read a request's JSON body within its limits, and check it with a pydantic model.

Every mistake is a 4xx with the API's error object. Stricter than `json.loads`: NaN, infinity and
lone surrogates are refused, because neither JSON nor UTF-8 can write them.
"""

import asyncio
import json
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from oss_lab.server.errors import ApiError
from oss_lab.server.settings import Limits

LARGE = 2**16  # bytes
DEEPEST = 100  # levels
Model = TypeVar("Model", bound=BaseModel)


async def read_body(request: Request, kind: type[Model], limits: Limits) -> Model:
    """The body as a model of this kind.

    Raises:
        ApiError: the body is too large, too slow, not JSON, or has a wrong field.
    """
    data = await receive(request, limits)
    # A large body is parsed in another thread, since the event loop serves all clients.
    value = parse(data) if len(data) < LARGE else await asyncio.to_thread(parse, data)
    return check(value, kind)


def parse(data: bytes) -> dict[str, Any]:
    """The JSON object in a body.

    Raises:
        ApiError: it is not one, or is nested too deeply.
    """
    try:
        value = json.loads(data, parse_constant=refuse_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ApiError(400, "the body has a lone surrogate, which UTF-8 cannot write") from None
    except RecursionError:
        raise too_deep() from None
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    check_depth(value)
    return value


def check_depth(value: dict[str, Any] | list[Any]) -> None:
    """Raise ApiError if lists and objects are nested so deeply that other code could not follow."""
    level: list[Any] = [value]
    depth = 0
    while level:
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
        depth += 1
        if depth > DEEPEST:
            raise too_deep()


def too_deep() -> ApiError:
    return ApiError(400, f"the body is nested more than {DEEPEST} levels deep", code="invalid_json")


async def receive(request: Request, limits: Limits) -> bytes:
    """The bytes of the body.

    Raises:
        ApiError: there are too many, or they take too long.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limits.body_bytes:
        raise too_large(limits)
    parts, size = [], 0
    try:
        async with asyncio.timeout(limits.read_seconds):
            async for part in request.stream():
                size += len(part)
                if size > limits.body_bytes:
                    raise too_large(limits)
                parts.append(part)
    except TimeoutError:
        raise ApiError(
            408, f"the body did not arrive within {limits.read_seconds:g} seconds"
        ) from None
    except ClientDisconnect:
        raise ApiError(400, "the connection ended before the body did") from None
    return b"".join(parts)


def too_large(limits: Limits) -> ApiError:
    return ApiError(
        413,
        f"the body is larger than {limits.body_bytes} bytes, the limit of this server",
        code="request_too_large",
    )


def refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def check(value: dict[str, Any], kind: type[Model]) -> Model:
    """The value as a model of this kind.

    Raises:
        ApiError: a field is missing, unknown or wrong.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise explain(first["type"], first["loc"], first["msg"]) from None


def explain(kind: str, place: tuple[int | str, ...], message: str) -> ApiError:
    """The error about one field, in the words that the API uses."""
    name = "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in place)[1:]
    if kind == "extra_forbidden":
        return ApiError(400, f"Unknown parameter: '{name}'.", code="unknown_parameter", param=name)
    if kind == "missing":
        return ApiError(
            400,
            f"Missing required parameter: '{name}'.",
            code="missing_required_parameter",
            param=name,
        )
    message = message.removeprefix("Value error, ")
    return ApiError(400, f"{name}: {message}", code="invalid_value", param=name)

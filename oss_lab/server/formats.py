"""The response format of a request: text, JSON, or JSON that follows a schema."""

from collections.abc import Mapping
from typing import Any

from oss_lab.lab.options import Options
from oss_lab.server.errors import ApiError


def read_format(given: Mapping[str, Any] | None, notes: list[str]) -> Options:
    """The keywords of `Lab.chat` for a response format of either API.

    Raises:
        ApiError: it is not supported.
    """
    kind = "text" if given is None else given.get("type")
    if kind == "text":
        return {}
    raise ApiError(
        400,
        f"a response format of type {str(kind)[:40]!r} is not supported; use text",
        code="unsupported_parameter",
        param="response_format",
    )

"""The API's error object: `{"error": {"message", "type", "param", "code"}}`."""

from typing import Any

KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
KINDS |= {429: "rate_limit_error", 500: "server_error"}


class ApiError(Exception):
    """A request that is refused, with the HTTP status and the fields of the error object."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    @property
    def body(self) -> dict[str, Any]:
        kind = KINDS.get(self.status, "invalid_request_error")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    @property
    def headers(self) -> dict[str, str]:
        """Headers that belong to this status."""
        return {
            401: {"www-authenticate": "Bearer"},
            413: {"connection": "close"},
            429: {"retry-after": "1"},
        }.get(self.status, {})


INTERNAL = ApiError(500, "the server failed; its terminal shows why", code="server_error")

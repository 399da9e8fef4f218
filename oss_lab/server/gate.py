"""Checks every request before its body is read: transport, host, origin, token.

A page in a browser can send requests to this machine. Its name may even resolve to 127.0.0.1 (DNS
rebinding), so the name in `Host` must be localhost, an IP address or one that was allowed. A
request with an `Origin` comes from a page, which must be allowed too. Tokens are compared in
constant time.
"""

import hmac
import ipaddress
import secrets
from collections import Counter

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oss_lab.server.errors import ApiError
from oss_lab.server.settings import Settings

OPEN_PATHS = ("/health",)  # without a token
CORS = {
    "access-control-allow-methods": "GET, POST, DELETE",
    "access-control-allow-headers": "authorization, content-type",
    "access-control-max-age": "600",
}


class Gate:
    """Middleware that refuses what the settings do not allow.

    Attributes:
        answers: number of answers by status.
    """

    def __init__(self, app: ASGIApp, settings: Settings, answers: Counter[int]) -> None:
        self.app, self.settings, self.answers = app, settings, answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        added = {"x-request-id": f"req_{secrets.token_hex(12)}"}
        if (origin := headers.get("origin")) in self.settings.origins:
            added |= {"access-control-allow-origin": origin or "", "vary": "origin"}

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.answers[message["status"]] += 1
                pairs = [(name.encode(), value.encode()) for name, value in added.items()]
                message = {**message, "headers": [*message["headers"], *pairs]}
            await send(message)

        try:
            response = self._check(scope, headers)
        except ApiError as error:
            response = JSONResponse(error.body, error.status, error.headers)
        await (self.app if response is None else response)(scope, receive, answer)

    def _check(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to a preflight request; None if the request may pass.

        Raises:
            ApiError: it may not.
        """
        host, origin = headers.get("host", ""), headers.get("origin")
        if not is_allowed_host(host, self.settings.hosts):
            raise ApiError(
                403,
                "the Host header is neither localhost nor an IP address; start the server with"
                " --allow-host NAME to use another name",
                code="host_not_allowed",
            )
        if origin is not None and origin not in self.settings.origins:
            raise ApiError(
                403,
                "web pages may not use this server; start it with --allow-origin ORIGIN to allow"
                " one",
                code="origin_not_allowed",
            )
        if origin is not None and scope["method"] == "OPTIONS":
            return Response(status_code=204, headers=CORS)
        if headers.get("upgrade", "").lower() == "websocket":
            raise ApiError(
                400,
                "WebSocket is not supported by this server; use POST with `stream: true`",
                code="unsupported_transport",
            )
        self._check_token(scope, headers)
        return None

    def _check_token(self, scope: Scope, headers: Headers) -> None:
        expected = self.settings.token
        if expected is None or scope["path"] in OPEN_PATHS:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Headers are decoded as Latin-1, so every header can be encoded again.
        right = hmac.compare_digest(given.strip().encode("latin-1"), expected.encode())
        if scheme.lower() != "bearer" or not right:
            missing = "the token is wrong" if given else "the token is missing"
            raise ApiError(
                401,
                f"{missing}; send the one that `oss-lab serve` printed as `Authorization: Bearer"
                " TOKEN` (the API key of an OpenAI client)",
                code="invalid_api_key",
            )


def is_allowed_host(host: str, names: tuple[str, ...]) -> bool:
    """Whether a Host header names this machine, whatever its port.

    >>> [is_allowed_host(name, ()) for name in ("localhost:80", "[::1]:80", "10.0.0.2", "a.org")]
    [True, True, True, False]
    """
    name = host
    if host.startswith("["):
        name = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        name = host.partition(":")[0]
    name = name.lower().rstrip(".")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost" or name in names
    return True

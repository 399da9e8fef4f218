"""HTTP for the browser: small, bounded requests to addresses that a model may have chosen.

Only http and https. Addresses inside this machine or its network are refused, also after a
redirect, unless `allow_private` is set: otherwise a page could make the model read a private
service. Host names are resolved before the request and again by it, so this does not protect
against a name server that changes its answer in between.
"""

import ipaddress
import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from oss_lab.agents.arguments import CallError
from oss_lab.errors import shorten

SECONDS = 20.0
READING = 3  # the longest time for a whole page, in units of the wait for more data
LARGEST = 3_000_000  # bytes
AGENT = "oss-lab browser"
TEXTS = ("text/", "application/json", "application/xhtml", "application/xml")


@dataclass(frozen=True)
class Answer:
    """A response: its address after redirects, its kind and its text."""

    url: str
    kind: str
    text: str


@dataclass(frozen=True)
class Web:
    """Requests with limits.

    Attributes:
        seconds: the longest wait for a connection or for more data.
        allow_private: whether this machine and its network may be asked.
    """

    seconds: float = SECONDS
    allow_private: bool = False

    def get(
        self,
        url: str,
        parameters: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """The answer to a GET request.

        Raises:
            CallError: there is no text answer; the sentence has no header, and so no key.
        """
        query = f"?{urlencode(parameters)}" if parameters else ""
        return self._send(Request(url + query, headers=dict(headers or {})))

    def ask_json(
        self,
        url: str,
        *,
        parameters: Mapping[str, object] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The JSON answer to a GET request, or to a POST request if there is a body.

        Raises:
            CallError: there is no JSON answer.
        """
        headers = {"Accept": "application/json", **(headers or {})}
        if body is None:
            answer = self.get(url, parameters, headers)
        else:
            headers["Content-Type"] = "application/json"
            answer = self._send(Request(url, json.dumps(body).encode(), headers))
        try:
            return json.loads(answer.text)
        except ValueError:
            raise CallError(f"{find_host(url)} answered with something other than JSON") from None

    def _send(self, request: Request) -> Answer:
        url = request.full_url
        self.check(url)
        request.add_header("User-Agent", AGENT)
        try:
            with build_opener(_Redirects(self)).open(request, timeout=self.seconds) as response:
                kind = response.headers.get_content_type()
                if not kind.startswith(TEXTS):
                    raise CallError(f"{find_host(url)} sent {kind}, which is not text")
                data = self._read(response)
                charset = response.headers.get_content_charset() or "utf-8"
                final = response.geturl()
        except HTTPError as error:
            raise CallError(f"{find_host(url)} answered with status {error.code}") from None
        except (URLError, OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise CallError(
                f"{find_host(url)} cannot be reached: {shorten(str(reason), 120)}"
            ) from None
        if len(data) > LARGEST:
            raise CallError(f"the page at {find_host(url)} has more than {LARGEST:,} bytes")
        try:
            return Answer(final, kind, data.decode(charset, "replace"))
        except LookupError:
            return Answer(final, kind, data.decode("utf-8", "replace"))

    def _read(self, response: Any) -> bytes:
        """The body, up to one byte more than is allowed, and not for longer than READING."""
        data, end = b"", time.monotonic() + READING * self.seconds
        while len(data) <= LARGEST and (part := response.read1(65_536)):
            data += part
            if time.monotonic() > end:
                raise TimeoutError("the page takes too long")
        return data

    def check(self, url: str) -> None:
        """Raise CallError for an address that must not be opened."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise CallError(f"{shorten(url, 80)!r} is not an address") from None
        if parts.scheme not in ("http", "https") or not host:
            raise CallError(f"{shorten(url, 80)!r} is not an address that begins with https://")
        if self.allow_private:
            return
        try:
            found = socket.getaddrinfo(host, port or 443, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise CallError(f"there is no host {shorten(host, 80)!r}") from None
        if not all(is_public(str(each[4][0])) for each in found):
            raise CallError(f"{shorten(host, 80)!r} is inside a private network and is not opened")


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet.

    >>> is_public("127.0.0.1"), is_public("::ffff:10.0.0.1"), is_public("93.184.216.34")
    (False, False, True)
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_global and not parsed.is_multicast


def find_host(url: str) -> str:
    """The host of an address, for a sentence."""
    try:
        return urlsplit(url).hostname or "the address"
    except ValueError:
        return "the address"


class _Redirects(HTTPRedirectHandler):
    """Checks each address that a server sends the request to."""

    def __init__(self, web: Web) -> None:
        self.web = web

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        self.web.check(newurl)
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and find_host(newurl) != find_host(req.full_url):
            new.headers = {k: v for k, v in new.headers.items() if k.lower() in ("accept",)}
        return new

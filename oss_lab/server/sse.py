"""Server-sent events, and work that ends when the client vanishes.

The stream is written to the connection directly. Starlette's StreamingResponse starts several tasks
per response and takes longer per event than the model takes per token.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

Result = TypeVar("Result")
_ENCODER = json.JSONEncoder(separators=(",", ":"))  # built once: a third of the time per event


def write_event(data: Mapping[str, Any], name: str | None = None) -> bytes:
    """One event; `name` is its type in the stream, for clients that read it."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {_ENCODER.encode(data)}\n\n".encode()


DONE = b"data: [DONE]\n\n"
GRACE = 30.0  # seconds for a slow client to read the rest, once the time for a reply is over


class EventStream(Response):
    """A response whose body is a stream of events.

    Args:
        parts: bytes to send. It is closed if the client vanishes or stops reading for too long.
        on_end: called at the end, however the stream ended.
        seconds: until the connection is closed.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        parts: AsyncIterator[bytes],
        on_end: Callable[[], None],
        *,
        seconds: float,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(None, headers={**headers, "cache-control": "no-store"})
        del self.headers["content-length"]
        self._parts, self._on_end, self._seconds = parts, on_end, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writing = asyncio.ensure_future(self._write(send))
        watching = asyncio.ensure_future(wait_for_disconnect(receive))
        try:
            async with asyncio.timeout(self._seconds):
                await asyncio.wait((writing, watching), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            pass  # the client stopped reading
        finally:
            self._on_end()
            for task in (writing, watching):
                task.cancel()
            found, _ = await asyncio.gather(writing, watching, return_exceptions=True)
        if isinstance(found, Exception):
            raise found

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for part in self._parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def run_while_connected(request: Request, work: Awaitable[Result]) -> Result | None:
    """The result of some work, or None if the client vanished first; the work is then cancelled."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(wait_for_disconnect(request.receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)

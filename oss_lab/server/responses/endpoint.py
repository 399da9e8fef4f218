"""POST /v1/responses, as a stream of events or as one object."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from oss_lab.server.body import read_body
from oss_lab.server.context import Context
from oss_lab.server.errors import INTERNAL, ApiError
from oss_lab.server.job import Job, Update, read_updates
from oss_lab.server.notes import note_headers
from oss_lab.server.pieces import Pieces
from oss_lab.server.responses.items import new_id
from oss_lab.server.responses.output import Output
from oss_lab.server.responses.request import Asked, ResponseBody
from oss_lab.server.responses.resource import finish_response, new_response
from oss_lab.server.sse import GRACE, EventStream, run_while_connected
from oss_lab.server.store import Record

DIALECT_HEADER = "x-oss-lab-events"
log = logging.getLogger("oss_lab.server")


async def create_response(context: Context, request: Request) -> Response:
    """Reply to items."""
    limits = context.settings.limits
    body = await read_body(request, ResponseBody, limits)
    context.check_model(body.model)
    asked = Asked(context, body, asyncio.Event())
    (job,) = await context.start(asked.build_jobs)
    is_open = request.headers.get(DIALECT_HEADER) == "openresponses"
    writer = Writer(asked, job, is_open=is_open)
    headers = note_headers(asked.notes)
    if body.stream:
        seconds = limits.seconds + GRACE
        return EventStream(writer.stream(), writer.end, seconds=seconds, headers=headers)
    try:
        found = await run_while_connected(request, writer.collect())
    finally:
        writer.end()
    return Response(status_code=499) if found is None else JSONResponse(found, headers=headers)


class Writer:
    """The response to one request.

    Attributes:
        response: the response object so far.
    """

    def __init__(self, asked: Asked, job: Job, *, is_open: bool) -> None:
        self.asked, self.job, self.context = asked, job, asked.context
        lab, settings = self.context.lab, self.context.settings
        self.output = Output(
            lab.tokenizer,
            job,
            dialect="openresponses" if is_open else "openai",
            hides_analysis=settings.hide_analysis,
            has_logprobs=asked.body.has_logprobs,
        )
        self.pieces = Pieces()
        self.response = new_response(new_id("resp"), asked.body, lab)
        self.context.running[self.response["id"]] = self

    def end(self) -> None:
        """Forget the response, and end its job if it still runs: the client is gone."""
        self.context.running.pop(self.response["id"], None)
        self.context.end([self.job])

    async def collect(self) -> dict[str, Any]:
        """The whole response."""
        async for _ in self._read():
            pass
        return self.response

    async def stream(self) -> AsyncIterator[bytes]:
        """The events of the response; the last one is `completed`, `incomplete` or `failed`."""
        event = self.output.event
        first = [
            event("response.created", response=self.response),
            event("response.in_progress", response=self.response),
        ]
        yield b"".join(first)
        try:
            async for part in self._read():
                yield part
            kind = "completed" if self.response["status"] == "completed" else "incomplete"
            yield event(f"response.{kind}", response=self.response)
        except Exception as error:
            log.error("a response failed", exc_info=error)
            found = error if isinstance(error, ApiError) else INTERNAL
            failure = {"code": found.code or "server_error", "message": found.message}
            self.response = {**self.response, "status": "failed", "error": failure}
            yield event("response.failed", response=self.response)

    async def _read(self) -> AsyncIterator[bytes]:
        """The events of the items, as they arrive; then `response` is complete and stored."""
        async for _, updates in read_updates([self.job], self.asked.inbox):
            parts = [part for update in updates for part in self._read_update(update)]
            if parts:
                yield b"".join(parts)
        if self.asked.body.is_stored:
            await asyncio.to_thread(self._save)

    def _read_update(self, update: Update) -> list[bytes]:
        if update.reply is None:
            pieces = self.pieces.read(update.events)
        else:
            pieces = self.pieces.finish(update.events, update.reply)
        parts = [part for piece in pieces for part in self.output.read(piece)]
        if update.reply is not None:
            self.response = finish_response(
                self.response, self.output.items, self.job, update.reply,
                self.pieces.reasoning_tokens,
            )  # fmt: skip
        return parts

    def _save(self) -> None:
        body = self.asked.body
        self.context.store.save(
            Record(
                self.response["id"], body.previous_response_id, self.response, self.asked.items,
                self.output.full_items,
            )
        )  # fmt: skip

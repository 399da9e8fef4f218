"""POST /v1/chat/completions, as a stream of chunks or as one object."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from oss_lab.server.body import read_body
from oss_lab.server.chat.choice import Choice
from oss_lab.server.chat.request import ChatBody, build_jobs
from oss_lab.server.context import Context
from oss_lab.server.errors import INTERNAL, ApiError
from oss_lab.server.job import Job, read_updates
from oss_lab.server.notes import note_headers
from oss_lab.server.sse import DONE, GRACE, EventStream, run_while_connected, write_event

log = logging.getLogger("oss_lab.server")


async def create_chat_completion(context: Context, request: Request) -> Response:
    """Reply to a conversation."""
    limits = context.settings.limits
    body = await read_body(request, ChatBody, limits)
    context.check_model(body.model)
    inbox, notes = asyncio.Event(), list[str]()
    jobs = await context.start(lambda: build_jobs(context, body, inbox, notes))
    completion = Completion(context, body, jobs, inbox)
    headers = note_headers(notes)
    if body.stream:
        return EventStream(
            completion.stream(),
            lambda: context.end(jobs),
            seconds=limits.seconds + GRACE,
            headers=headers,
        )
    try:
        found = await run_while_connected(request, completion.collect())
    finally:
        context.end(jobs)
    return Response(status_code=499) if found is None else JSONResponse(found, headers=headers)


class Completion:
    """The reply to one request."""

    def __init__(
        self, context: Context, body: ChatBody, jobs: Sequence[Job], inbox: asyncio.Event
    ) -> None:
        self.body, self.jobs, self.inbox = body, jobs, inbox
        self.choices = [
            Choice(
                context.lab.tokenizer,
                job,
                body.stops,
                hides_analysis=context.settings.hide_analysis,
                has_logprobs=bool(body.logprobs),
            )
            for job in jobs
        ]
        self.head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": body.model,
        }

    async def collect(self) -> dict[str, Any]:
        """The whole completion."""
        async for index, updates in read_updates(self.jobs, self.inbox):
            self.choices[index].read(updates)
        choices = [
            {
                "index": index,
                "message": choice.message(),
                "logprobs": choice.logprobs(),
                "finish_reason": choice.finish_reason,
            }
            for index, choice in enumerate(self.choices)
        ]
        kind = "chat.completion"
        return {**self.head, "object": kind, "choices": choices, "usage": self.count_usage()}

    async def stream(self) -> AsyncIterator[bytes]:
        """The chunks, then the usage if it is wanted, then [DONE]; an error ends the stream."""
        try:
            for index in range(len(self.choices)):
                yield self._write(index, {"role": "assistant", "content": ""})
            async for index, updates in read_updates(self.jobs, self.inbox):
                choice = self.choices[index]
                parts = [self._write(index, *each) for each in choice.read(updates)]
                if choice.finish_reason is not None:
                    parts.append(self._write(index, {}, finish_reason=choice.finish_reason))
                if parts:
                    yield b"".join(parts)
            if self.body.wants_usage:
                yield write_event(self._chunk([], self.count_usage()))
        except Exception as error:
            log.error("a completion failed", exc_info=error)
            yield write_event((error if isinstance(error, ApiError) else INTERNAL).body)
        yield DONE

    def _write(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: list[Any] | None = None,
        finish_reason: str | None = None,
    ) -> bytes:
        found = None if logprobs is None else {"content": logprobs, "refusal": None}
        choice = {"index": index, "delta": delta, "logprobs": found, "finish_reason": finish_reason}
        return write_event(self._chunk([choice], None))

    def _chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> dict[str, Any]:
        chunk = {**self.head, "object": "chat.completion.chunk", "choices": choices}
        return {**chunk, "usage": usage} if self.body.wants_usage else chunk

    def count_usage(self) -> dict[str, Any]:
        """Tokens of the prompt, counted once, and of all choices."""
        replies = [choice.reply for choice in self.choices if choice.reply is not None]
        prompt = len(replies[0].prompt_tokens)
        written = sum(len(reply.tokens) for reply in replies)
        thinking = sum(choice.pieces.reasoning_tokens for choice in self.choices)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": written,
            "total_tokens": prompt + written,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": thinking},
        }

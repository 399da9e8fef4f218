"""Harmony's pieces as output items, and as the events that openai 3.x parses.

Every item has its event `added` before its first delta and `done` after its last, also if it is
empty. `content_index` counts within the item. An item that the model could not finish is
incomplete, and so is its response.

OpenAI calls the events of reasoning `response.reasoning_text.*`, Open Responses
`response.reasoning.*`. The first is sent, unless the request asks for the other with the header
`x-oss-lab-events: openresponses`.
"""

from typing import Any, Literal

import tiktoken

from oss_lab.server.job import Job
from oss_lab.server.logprobs import write_logprobs
from oss_lab.server.pieces import Added, Closed, Opened, Piece
from oss_lab.server.responses.items import new_id
from oss_lab.server.sse import write_event
from oss_lab.server.store import Item

Dialect = Literal["openai", "openresponses"]
REASONING = {"openai": "response.reasoning_text", "openresponses": "response.reasoning"}


class Output:
    """The items of one response, in order.

    Attributes:
        items: as the client gets them. `full_items` have the chain of thought even if it is hidden.
    """

    def __init__(
        self,
        encoding: tiktoken.Encoding,
        job: Job,
        *,
        dialect: Dialect,
        hides_analysis: bool,
        has_logprobs: bool,
    ) -> None:
        self.encoding, self.job, self.dialect = encoding, job, dialect
        self.hides_analysis, self.has_logprobs = hides_analysis, has_logprobs
        self.items: list[Item] = []
        self.full_items: list[Item] = []
        self._number = 0
        self._kind = ""
        self._logprobs: list[dict[str, Any]] = []

    def event(self, type: str, **fields: Any) -> bytes:
        """The next event of the stream."""
        data = {"type": type, "sequence_number": self._number, **fields}
        self._number += 1
        return write_event(data, type)

    def read(self, piece: Piece) -> list[bytes]:
        """The events of a piece; the items grow with it."""
        if isinstance(piece, Opened):
            return self._begin(piece)
        if isinstance(piece, Added):
            return self._add(piece)
        return self._end(piece)

    @property
    def _is_hidden(self) -> bool:
        return self._kind == "reasoning" and self.hides_analysis

    @property
    def _place(self) -> dict[str, Any]:
        place = {"item_id": self.items[-1]["id"], "output_index": len(self.items) - 1}
        return place if self._kind == "call" else {**place, "content_index": 0}

    def _begin(self, opened: Opened) -> list[bytes]:
        self._kind, self._logprobs = opened.kind, []
        item = new_item(opened)
        self.items.append(item)
        index = len(self.items) - 1
        events = [self.event("response.output_item.added", output_index=index, item=item)]
        if self._kind != "call" and not self._is_hidden:
            part = self._write_part("")
            events.append(self.event("response.content_part.added", **self._place, part=part))
        return events

    def _add(self, piece: Added) -> list[bytes]:
        if self._is_hidden:
            return []
        if self._kind == "call":
            name = "response.function_call_arguments.delta"
        elif self._kind == "reasoning":
            name = f"{REASONING[self.dialect]}.delta"
        else:
            logprobs = []
            if self.has_logprobs:
                first, end = piece.tokens
                logprobs = write_logprobs(self.encoding, self.job.builder.tokens[first:end])
                self._logprobs += logprobs
            name = "response.output_text.delta"
            return [self.event(name, **self._place, delta=piece.text, logprobs=logprobs)]
        return [self.event(name, **self._place, delta=piece.text)]

    def _end(self, piece: Closed) -> list[bytes]:
        place, text = self._place, piece.text
        status = "completed" if piece.is_complete else "incomplete"
        part = self._write_part(text)
        if self._kind == "call":
            item = {**self.items[-1], "status": status, "arguments": text}
            name = "response.function_call_arguments.done"
            events = [self.event(name, **place, name=item["name"], arguments=text)]
        else:
            item = {**self.items[-1], "status": status, "content": [part]}
            if self._kind == "reasoning":
                done = self.event(f"{REASONING[self.dialect]}.done", **place, text=text)
            else:
                name = "response.output_text.done"
                done = self.event(name, **place, text=text, logprobs=self._logprobs)
            events = [done, self.event("response.content_part.done", **place, part=part)]
        self.full_items.append(item)
        if self._is_hidden:
            item, events = {**self.items[-1], "status": status}, []
        self.items[-1] = item
        index = len(self.items) - 1
        return [*events, self.event("response.output_item.done", output_index=index, item=item)]

    def _write_part(self, text: str) -> dict[str, Any]:
        if self._kind == "reasoning":
            return {"type": "reasoning_text", "text": text}
        return {
            "type": "output_text",
            "text": text,
            "annotations": [],
            "logprobs": list(self._logprobs),
        }


def new_item(opened: Opened) -> Item:
    """An item that has just begun."""
    if opened.kind == "reasoning":
        return {"id": new_id("rs"), "type": "reasoning", "summary": [], "status": "in_progress"}
    if opened.kind == "call":
        return {
            "id": new_id("fc"),
            "type": "function_call",
            "status": "in_progress",
            "call_id": new_id("call"),
            "name": opened.name,
            "arguments": "",
        }
    return {
        "id": new_id("msg"),
        "type": "message",
        "status": "in_progress",
        "role": "assistant",
        "phase": opened.phase,
        "content": [],
    }

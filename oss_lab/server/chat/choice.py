"""One choice of a chat completion: Harmony's pieces as deltas of a stream, and as a message.

The content is the text of `commentary` and `final`, with a newline between messages. The chain of
thought is `reasoning_content`, unless it is hidden.
"""

import secrets
from collections.abc import Sequence
from typing import Any

import tiktoken

from oss_lab.record.reply import Reply
from oss_lab.server.job import Job, Update
from oss_lab.server.logprobs import write_logprobs
from oss_lab.server.pieces import Added, Closed, Opened, Piece, Pieces

Delta = dict[str, Any]


class Choice:
    """Collects a choice while it is generated.

    Attributes:
        reply: None until the choice is finished.
        finish_reason: None until then.
    """

    def __init__(
        self,
        encoding: tiktoken.Encoding,
        job: Job,
        stop: Sequence[str],
        *,
        hides_analysis: bool,
        has_logprobs: bool,
    ) -> None:
        self.encoding, self.job = encoding, job
        self.hides_analysis, self.has_logprobs = hides_analysis, has_logprobs
        self.pieces = Pieces(stop)
        self.reply: Reply | None = None
        self.finish_reason: str | None = None
        self._text: dict[str, str] = {"content": "", "reasoning_content": ""}
        self._calls: list[dict[str, Any]] = []
        self._logprobs: list[dict[str, Any]] = []
        self._open: Opened | None = None
        self._separator = ""

    def read(self, updates: Sequence[Update]) -> list[tuple[Delta, list[Any] | None]]:
        """The deltas of these updates, each with the log-probabilities of its content."""
        deltas = []
        for update in updates:
            if update.reply is None:
                pieces = self.pieces.read(update.events)
            else:
                pieces = self.pieces.finish(update.events, update.reply)
                self.reply = update.reply
                self.finish_reason = find_finish_reason(update.reply)
            for piece in pieces:
                delta, logprobs = self._read(piece)
                if delta:
                    deltas.append((delta, logprobs))
        return deltas

    def _read(self, piece: Piece) -> tuple[Delta, list[Any] | None]:
        if isinstance(piece, Opened):
            return self._begin(piece), None
        if isinstance(piece, Closed) or self._open is None:
            return {}, None
        if self._open.kind == "call":
            self._calls[-1]["function"]["arguments"] += piece.text
            number = len(self._calls) - 1
            return {"tool_calls": [{"index": number, "function": {"arguments": piece.text}}]}, None
        if self._open.kind == "reasoning":
            return ({} if self.hides_analysis else self._add("reasoning_content", piece)), None
        logprobs = None
        if self.has_logprobs:
            first, end = piece.tokens
            logprobs = write_logprobs(self.encoding, self.job.builder.tokens[first:end])
            self._logprobs += logprobs
        return self._add("content", piece), logprobs

    def _begin(self, opened: Opened) -> Delta:
        self._open = opened
        field = "reasoning_content" if opened.kind == "reasoning" else "content"
        self._separator = "\n" if self._text[field] else ""
        if opened.kind != "call":
            return {}
        function = {"name": opened.name, "arguments": ""}
        call = {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
        self._calls.append(call)
        # A copy: the arguments of the one in the list grow.
        return {"tool_calls": [{"index": len(self._calls) - 1, **call, "function": {**function}}]}

    def _add(self, field: str, piece: Added) -> Delta:
        text, self._separator = self._separator + piece.text, ""
        self._text[field] += text
        return {field: text}

    def message(self) -> dict[str, Any]:
        """The message so far."""
        content = self._text["content"]
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if self._calls and not content else content,
            "refusal": None,
            "annotations": [],
        }
        if self._text["reasoning_content"]:
            message["reasoning_content"] = self._text["reasoning_content"]
        if self._calls:
            message["tool_calls"] = self._calls
        return message

    def logprobs(self) -> dict[str, Any] | None:
        """The log-probabilities of the content, if they were requested."""
        return {"content": self._logprobs, "refusal": None} if self.has_logprobs else None


def find_finish_reason(reply: Reply) -> str:
    """The API's reason for the end of a reply."""
    if reply.open_calls:
        return "tool_calls"
    return "length" if reply.stop == "length" else "stop"

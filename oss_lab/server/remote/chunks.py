"""Chunks of a streamed chat completion as Harmony events, and the reply that they make.

Text next to reasoning is the answer until a call follows; then it was a preamble, and the reply has
it on commentary. Positions of tokens are not known, so the events have (0, 0).
"""

import operator
import time
from typing import Any

from oss_lab.errors import LabError
from oss_lab.harmony.events import Delta, End, Event, Start
from oss_lab.harmony.messages import Author, Conversation, Message
from oss_lab.harmony.specials import CONSTRAIN
from oss_lab.record.reply import Reply, Stop, Timing

UNKNOWN = (0, 0)
STOPS: dict[str, Stop] = {"tool_calls": "call", "function_call": "call", "length": "length"}
REASONING = ("reasoning_content", "reasoning")  # the names that engines use


class ChunkReader:
    """Collects the chunks of one reply.

    Attributes:
        finish_reason: why the engine says it stopped; None until it does.
        completion_tokens: how many tokens it says it generated; 0 if it does not say.
    """

    def __init__(self, prompt: Conversation, engine: str) -> None:
        self.prompt, self.engine = prompt, engine
        self.finish_reason: str | None = None
        self.completion_tokens = 0
        self._texts = {"analysis": "", "final": ""}
        self._calls: dict[int, dict[str, str]] = {}
        self._open: tuple[str, int | None] | None = None  # channel, number of the call
        self._start_time = time.perf_counter()
        self._first = 0.0

    def start_clock(self) -> None:
        """Start the clock: the request is sent now."""
        self._start_time = time.perf_counter()

    def add(self, chunk: Any) -> list[Event]:
        """The events of one chunk, an object of the package openai, which does not check it.

        Raises:
            LabError: it is not a chunk of the API.
        """
        try:
            return self._read(chunk)
        except (AttributeError, LookupError, TypeError, ValueError):
            raise LabError(
                f"{self.engine} sent a part of the reply that is not in the format of OpenAI's chat"
                " completions"
            ) from None

    def _read(self, chunk: Any) -> list[Event]:
        usage = getattr(chunk, "usage", None)
        if usage is not None:
            self.completion_tokens = operator.index(usage.completion_tokens or 0)
        # Only one choice is requested; parts of others must not mix with it.
        choice = next((each for each in chunk.choices or () if not each.index), None)
        if choice is None:
            return []
        self.finish_reason = read_text(choice.finish_reason) or self.finish_reason
        delta, events = choice.delta, list[Event]()
        if delta is None:
            return events
        extra = delta.model_extra or {}
        thought = next((extra[name] for name in REASONING if extra.get(name)), "")
        for channel, text in (("analysis", thought), ("final", delta.content)):
            if text := read_text(text):
                self._texts[channel] += text
                events += self._extend(text, channel, None)
        for part in delta.tool_calls or ():
            events += self._add_call(part)
        if events and not self._first:
            self._first = time.perf_counter() - self._start_time
        return events

    def finish(self) -> tuple[list[Event], Reply]:
        """Close what is open; returns the last events and the reply."""
        total = time.perf_counter() - self._start_time
        messages = tuple(self._build_messages())
        reply = Reply(
            self.prompt,
            (),
            (),
            "\n".join(message.text for message in messages),
            messages,
            STOPS.get(self.finish_reason or "", "call" if self._calls else "return"),
            (),
            Timing(self._first, total, self.completion_tokens),
            engine=self.engine,
            unfinished=self.finish_reason in (None, "length"),
        )
        return self._close(), reply

    def _build_messages(self) -> list[Message]:
        found = list[Message]()
        if self._texts["analysis"]:
            found.append(Message.of("assistant", self._texts["analysis"], channel="analysis"))
        if self._texts["final"]:
            channel = "commentary" if self._calls else "final"
            found.append(Message.of("assistant", self._texts["final"], channel=channel))
        for _, call in sorted(self._calls.items()):
            found.append(make_call(**call))
        return found

    def _add_call(self, part: Any) -> list[Event]:
        index = operator.index(part.index or 0)
        call = self._calls.setdefault(index, {"name": "", "arguments": ""})
        function = part.function
        if function is None:
            return []
        call["name"] += read_text(function.name)
        call["arguments"] += (arguments := read_text(function.arguments))
        return self._extend(arguments, "commentary", index)

    def _extend(self, text: str, channel: str, call: int | None) -> list[Event]:
        """The events of new text; a message that goes elsewhere ends before it."""
        events = list[Event]()
        recipient = None if call is None else f"functions.{self._calls[call]['name']}"
        if self._open != (channel, call):
            events += self._close()
            self._open = channel, call
            kind = None if call is None else f"{CONSTRAIN}json"
            events.append(Start(Author("assistant"), channel, recipient, kind, UNKNOWN))
        if text:
            events.append(Delta(text, channel, recipient, UNKNOWN))
        return events

    def _close(self) -> list[Event]:
        if self._open is None:
            return []
        (channel, call), self._open = self._open, None
        if call is not None:
            return [End(make_call(**self._calls[call]), None, UNKNOWN)]
        message = Message.of("assistant", self._texts[channel], channel=channel)
        return [End(message, None, UNKNOWN)]


def read_text(value: str | None) -> str:
    """The text in a field; none is an empty one.

    Raises:
        TypeError: it is something else.
        ValueError: it has half of a surrogate pair.
    """
    str.encode(value or "")
    return value or ""


def make_call(name: str, arguments: str) -> Message:
    """A call of a function as a message."""
    return Message.of(
        "assistant",
        arguments,
        channel="commentary",
        recipient=f"functions.{name}",
        content_type=f"{CONSTRAIN}json",
    )

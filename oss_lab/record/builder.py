"""Build a reply from its tokens, one at a time, while they are generated.

A `ReplyBuilder` turns tokens into Harmony events, ends an analysis that exceeds its budget with
the header of `final`, and detects stop strings. A `Stream` combines a builder with the iterator
that generates its tokens.
"""

import codecs
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Protocol

import tiktoken

from oss_lab.errors import LabError
from oss_lab.harmony import (
    Conversation,
    Delta,
    Diagnostic,
    Event,
    Message,
    Start,
    StreamParser,
    find_declared_tools,
    find_demanded_channels,
)
from oss_lab.harmony.chat_parts import ParseReply
from oss_lab.harmony.messages import TextContent
from oss_lab.harmony.specials import (
    CALL,
    CHANNEL,
    END,
    ENDOFTEXT,
    MESSAGE,
    RETURN,
    START,
    find_special_tokens,
    token_bytes,
)
from oss_lab.hooks.selection import is_integer
from oss_lab.record.reply import Reply, Stop, Timing
from oss_lab.record.token import Token
from oss_lab.record.token_labels import decode_tokens

STOP_OF_TOKEN: dict[str, Stop] = {RETURN: "return", CALL: "call", ENDOFTEXT: "endoftext"}


@dataclass
class ReplyBuilder:
    """Collects the tokens of one sequence and builds its reply.

    Attributes:
        prompt: None for raw text, which has no channels.
        stop: strings that end the answer, or the text if it is raw; they are not part of it.
        ignore_stops: for raw text: stop tokens do not end it, and are shown by name.
        warnings: what the rendering of the prompt lost.
        parse: reads the messages of the finished reply; None: they are those of the events.
    """

    encoding: tiktoken.Encoding
    prompt: Conversation | None
    prompt_tokens: tuple[int, ...]
    analysis_budget: int | None = None
    stop: Sequence[str] = ()
    tokens: list[Token] = field(default_factory=list)
    ignore_stops: bool = False
    warnings: tuple[str, ...] = ()
    parse: ParseReply | None = None

    def __post_init__(self) -> None:
        budget = self.analysis_budget
        if budget is not None and not (is_integer(budget) and budget >= 0):
            raise LabError(f"analysis_budget is {budget!r}; it must be an integer, 0 or more")
        self.parser = None if self.prompt is None else build_parser(self.encoding, self.prompt)
        self._is_invented = False  # whether the model has begun a message of another author
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._given_tokens = 0  # tokens present before generation
        self._analysis_tokens = 0  # so far, if there is a budget
        self._answer = ""  # text of the open final message, or all raw text
        self._given_characters = 0  # characters of it present before generation
        self._start_time = time.perf_counter()
        self._first = self._last = 0.0

    def start_with(self, tokens: Sequence[Token | int]) -> None:
        """Start the reply with these tokens; plain ids count as forced."""
        for each in tokens:
            self.add(Token(each, math.nan, forced=True) if isinstance(each, int) else each)
        self._given_tokens, self._given_characters = len(self.tokens), len(self._answer)

    def start_clock(self) -> None:
        """Start the clock: generation starts now."""
        self._start_time = time.perf_counter()

    def add(self, token: Token) -> list[Event]:
        """Add the next token; returns the events that it causes."""
        self.tokens.append(token)
        self._last = time.perf_counter() - self._start_time
        if len(self.tokens) == self._given_tokens + 1:
            self._first = self._last
        if self.parser is None:
            return self._decode_plain(token.id)
        if self.analysis_budget is not None:
            self._analysis_tokens += self._is_thinking()
        events = self._cut_invented(self.parser.feed(token.id))
        for event in events:
            if isinstance(event, Start):
                self._answer, self._given_characters = "", 0
            elif isinstance(event, Delta) and event.channel == "final":
                self._answer += event.text
        return events

    def _cut_invented(self, events: list[Event]) -> list[Event]:
        """The events that belong to the reply; after an invented message only diagnostics do."""
        kept = list[Event]()
        for event in events:
            self._is_invented |= isinstance(event, Start) and event.author.role != "assistant"
            if isinstance(event, Diagnostic) or not self._is_invented:
                kept.append(event)
        return kept

    def _decode_plain(self, id: int) -> list[Event]:
        """The text of a token outside Harmony; none for a stop token."""
        is_stop = find_special_tokens(self.encoding).names.get(id) in STOP_OF_TOKEN
        if is_stop and not self.ignore_stops:
            return []
        return self._decode_text(token_bytes(self.encoding, id) or b"")

    def _decode_text(self, data: bytes, *, is_last: bool = False) -> list[Event]:
        """The characters that these bytes complete."""
        text = self._decoder.decode(data, is_last)
        self._answer += text
        here = len(self.tokens)
        return [Delta(text, None, None, (here - 1, here))] if text else []

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string was generated, or a message of another author has begun.

        A stop string in the given tokens does not count.
        """
        return self._is_invented or self._stop_index is not None

    @property
    def _stop_index(self) -> int | None:
        """Index in the answer at which the first stop string starts."""
        if not self.stop:
            return None
        given = self._given_characters
        found = [self._answer.find(each, max(0, given - len(each) + 1)) for each in self.stop]
        return min((place for place in found if place >= 0), default=None)

    def next_forced_ids(self) -> list[int]:
        """The ids to force next if the analysis has used up its budget, else none."""
        spent = self.analysis_budget is not None and self._analysis_tokens >= self.analysis_budget
        if not spent or not self._is_thinking():
            return []
        return final_header(self.encoding, inside_message=True)

    def finish(self) -> tuple[list[Event], Reply]:
        """Close what is open; returns the last events and the reply."""
        cut = self._stop_index
        complete = 0 if self.parser is None else len(self.parser.messages)
        events = (
            self._decode_text(b"", is_last=True)
            if self.parser is None
            else self._cut_invented(self.parser.finish())
        )
        messages = () if self.parser is None else tuple(takewhile(is_own, self.parser.messages))
        is_unfinished = len(messages) > complete
        text = self._answer
        if self.parser is not None:
            ids = tuple(token.id for token in self.tokens)
            text = decode_tokens(self.encoding, ids)
            if self.parse is not None:
                messages = tuple(takewhile(is_own, self.parse(ids, self.encoding)))
        if cut is not None:
            messages = (*messages[:-1], *(cut_text(each, cut) for each in messages[-1:]))
            text = self._answer[:cut] if self.parser is None else text
        reply = Reply(
            self.prompt,
            self.prompt_tokens,
            tuple(self.tokens),
            text,
            messages,
            "text" if cut is not None else self._stop_reason(messages),
            () if self.parser is None else tuple(self.parser.diagnostics),
            Timing(self._first, self._last, len(self.tokens) - self._given_tokens),
            warnings=self.warnings,
            unfinished=is_unfinished,
        )
        return events, reply

    def _is_thinking(self) -> bool:
        parser = self.parser  # a tool call on this channel does not count
        return (
            parser is not None
            and parser.state == "Content"
            and parser.channel == "analysis"
            and not parser.recipient
        )

    def _stop_reason(self, messages: Sequence[Message]) -> Stop:
        last = (
            find_special_tokens(self.encoding).names.get(self.tokens[-1].id, "")
            if self.tokens
            else ""
        )
        if self._is_invented:
            return "invented"
        if self.ignore_stops:
            return "length"
        if last == CALL and not any(message.recipient for message in messages):
            return "return"  # nothing was called, so the reply waits for nothing
        return STOP_OF_TOKEN.get(last, "length")


def build_parser(encoding: tiktoken.Encoding, prompt: Conversation) -> StreamParser:
    """The parser of a reply to this prompt, which checks what the prompt demands."""
    tools, channels = find_declared_tools(prompt), find_demanded_channels(prompt)
    return StreamParser(encoding, "assistant", recipients=tools, channels=channels)


def is_own(message: Message) -> bool:
    """Whether the assistant is the author."""
    return message.role == "assistant"


def cut_text(message: Message, length: int) -> Message:
    """A message cut to its first `length` characters."""
    return replace(message, content=(TextContent(message.text[:length]),))


class Builder(Protocol):
    """What a stream needs of a builder; a `ReplyBuilder` is one."""

    def start_clock(self) -> None: ...
    def finish(self) -> tuple[list[Event], Reply]: ...


class Stream:
    """The events of a reply as it is generated. `reply` is available once iteration has finished.

    Args:
        tokens: generates tokens and adds each to the builder; yields its events.
        complete: adds engine and trace to the finished reply.
    """

    def __init__(
        self,
        builder: Builder,
        tokens: Iterator[list[Event]],
        complete: Callable[[Reply], Reply],
    ) -> None:
        self._builder, self._tokens, self._complete = builder, tokens, complete
        self._reply: Reply | None = None
        self._has_started = False
        self._is_waiting = True  # between two tokens, and not inside the model

    def __iter__(self) -> Iterator[Event]:
        if self._has_started:
            raise LabError(
                "this stream was already read; its reply is in `.reply`, and a new `lab.stream`"
                " generates again"
            )
        self._has_started = True
        return self._events()

    def _events(self) -> Iterator[Event]:
        self._builder.start_clock()
        self._is_waiting = False
        for events in self._tokens:
            self._is_waiting = True
            yield from events
            self._is_waiting = False
        events, reply = self._builder.finish()
        self._reply = self._complete(reply)
        yield from events

    def cut(self) -> Reply:
        """End the reply here; it has the tokens so far, and its last message may be unfinished.

        Works also after an exception, such as Ctrl-C, has ended the generation. Such a reply lacks
        the engine and the trace if the exception came from inside the model. A complete reply is
        returned unchanged.
        """
        if self._reply is None:
            close = getattr(self._tokens, "close", None)
            if close is not None:
                close()
            self._has_started = True
            _, reply = self._builder.finish()
            self._reply = self._complete(reply) if self._is_waiting and reply.tokens else reply
        return self._reply

    def __repr__(self) -> str:
        state = "not read" if not self._has_started else "being read"
        return f"<Stream, {state if self._reply is None else self._reply}>"

    def read(self) -> Reply:
        """Read the stream to its end and return its reply."""
        for _ in self:
            pass
        return self.reply

    @property
    def reply(self) -> Reply:
        """The complete reply.

        Raises:
            LabError: the stream has not been read to its end.
        """
        if self._reply is None:
            raise LabError("the reply is not complete: read the stream to its end first")
        return self._reply


def final_header(encoding: tiktoken.Encoding, *, inside_message: bool) -> list[int]:
    """The ids that begin the final message.

    With `inside_message` they first end the open message; otherwise they follow `assistant`.
    """
    ids, text = find_special_tokens(encoding).ids, encoding.encode_ordinary
    ended = [ids[END], ids[START], *text("assistant")] if inside_message else []
    return [*ended, ids[CHANNEL], *text("final"), ids[MESSAGE]]

"""From tokens to a reply, one at a time, while they are generated.

A `ReplyBuilder` turns tokens into Harmony events, ends an analysis that exceeds its budget with
the header of `final`, and detects stop strings. A `Stream` is one builder with its tokens still to
come.
"""

import codecs
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import tiktoken

from oss_lab.errors import LabError
from oss_lab.harmony import Conversation, Delta, Event, Message, Start, StreamParser
from oss_lab.harmony.messages import TextContent
from oss_lab.harmony.specials import (
    CALL,
    CHANNEL,
    END,
    ENDOFTEXT,
    MESSAGE,
    RETURN,
    START,
    specials,
    token_bytes,
)
from oss_lab.hooks.selection import is_integer
from oss_lab.record.reply import Reply, Stop, Timing
from oss_lab.record.token import Token
from oss_lab.record.token_labels import text_of

STOP_OF_TOKEN: dict[str, Stop] = {RETURN: "return", CALL: "call", ENDOFTEXT: "endoftext"}


@dataclass
class ReplyBuilder:
    """Collects one row of a generation.

    Attributes:
        prompt: None for raw text, which has no channels.
        stop: strings at which the answer (raw text: the text) ends; they are left out of it.
    """

    encoding: tiktoken.Encoding
    prompt: Conversation | None
    prompt_tokens: tuple[int, ...]
    analysis_budget: int | None = None
    stop: Sequence[str] = ()
    tokens: list[Token] = field(default_factory=list)

    def __post_init__(self) -> None:
        budget = self.analysis_budget
        if budget is not None and not (is_integer(budget) and budget >= 0):
            raise LabError(f"analysis_budget is {budget!r}; it must be an integer, 0 or more")
        self.parser = None if self.prompt is None else StreamParser(self.encoding, "assistant")
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._given = 0  # tokens that were there before generation
        self._thought = 0  # tokens of analysis so far
        self._answer = ""  # text of the open final message, or all raw text
        self._answer_given = 0  # characters of it that were there before generation
        self._began = time.perf_counter()
        self._first = self._last = 0.0

    def give(self, tokens: Sequence[Token | int]) -> None:
        """Begin the reply with these tokens; ids count as forced."""
        for each in tokens:
            self.add(Token(each, math.nan, forced=True) if isinstance(each, int) else each)
        self._given, self._answer_given = len(self.tokens), len(self._answer)

    def begin(self) -> None:
        """Start the clock: generation begins now."""
        self._began = time.perf_counter()

    def add(self, token: Token) -> list[Event]:
        """Add the next token; returns the events that it causes."""
        self.tokens.append(token)
        self._last = time.perf_counter() - self._began
        if len(self.tokens) == self._given + 1:
            self._first = self._last
        if self.parser is None:
            return self._plain(token.id)
        self._thought += self._is_thinking()
        events = self.parser.feed(token.id)
        for event in events:
            if isinstance(event, Start):
                self._answer, self._answer_given = "", 0
            elif isinstance(event, Delta) and event.channel == "final":
                self._answer += event.text
        return events

    def _plain(self, id: int) -> list[Event]:
        """The text of a token outside Harmony; a stop token has none."""
        if specials(self.encoding).names.get(id) in STOP_OF_TOKEN:
            return []
        return self._text(token_bytes(self.encoding, id) or b"")

    def _text(self, data: bytes, *, is_last: bool = False) -> list[Event]:
        """The characters that these bytes complete."""
        text = self._decoder.decode(data, is_last)
        self._answer += text
        here = len(self.tokens)
        return [Delta(text, None, None, (here - 1, here))] if text else []

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string was generated; one that was given does not count."""
        return self._cut is not None

    @property
    def _cut(self) -> int | None:
        """Where in the answer the first stop string begins."""
        given = self._answer_given
        found = [self._answer.find(each, max(0, given - len(each) + 1)) for each in self.stop]
        return min((place for place in found if place >= 0), default=None)

    def take_over(self) -> list[int]:
        """The ids to write next, where the analysis has used up its budget."""
        spent = self.analysis_budget is not None and self._thought >= self.analysis_budget
        if not spent or not self._is_thinking():
            return []
        return final_header(self.encoding, inside_message=True)

    def finish(self) -> tuple[list[Event], Reply]:
        """Close what is open; returns the last events and the reply."""
        cut = self._cut
        events = self._text(b"", is_last=True) if self.parser is None else self.parser.finish()
        messages = () if self.parser is None else tuple(self.parser.messages)
        text = self._answer
        if self.parser is not None:
            text = text_of(self.encoding, [token.id for token in self.tokens])
        if cut is not None:
            messages = (*messages[:-1], *(cut_text(each, cut) for each in messages[-1:]))
            text = self._answer[:cut] if self.parser is None else text
        reply = Reply(
            self.prompt,
            self.prompt_tokens,
            tuple(self.tokens),
            text,
            messages,
            "text" if cut is not None else self._stop(),
            () if self.parser is None else tuple(self.parser.diagnostics),
            Timing(self._first, self._last, len(self.tokens) - self._given),
        )
        return events, reply

    def _is_thinking(self) -> bool:
        parser = self.parser  # a call to a tool on this channel is not a thought
        return (
            parser is not None
            and parser.state == "Content"
            and parser.channel == "analysis"
            and not parser.recipient
        )

    def _stop(self) -> Stop:
        last = specials(self.encoding).names.get(self.tokens[-1].id, "") if self.tokens else ""
        return STOP_OF_TOKEN.get(last, "length")


def cut_text(message: Message, length: int) -> Message:
    """A message of the first `length` characters."""
    return replace(message, content=(TextContent(message.text[:length]),))


class Stream:
    """The events of a reply as it is generated. `reply` is available once iteration has finished.

    Args:
        tokens: generates tokens and adds each to the builder; yields its events.
        complete: puts engine and trace into the finished reply.
    """

    def __init__(
        self,
        builder: ReplyBuilder,
        tokens: Iterator[list[Event]],
        complete: Callable[[Reply], Reply],
    ) -> None:
        self._builder, self._tokens, self._complete = builder, tokens, complete
        self._reply: Reply | None = None
        self._has_begun = False

    def __iter__(self) -> Iterator[Event]:
        if self._has_begun:
            raise LabError(
                "this stream was read already; its reply is in `.reply`, and another `lab.stream`"
                " generates again"
            )
        self._has_begun = True
        return self._events()

    def _events(self) -> Iterator[Event]:
        self._builder.begin()
        for events in self._tokens:
            yield from events
        events, reply = self._builder.finish()
        self._reply = self._complete(reply)
        yield from events

    def __repr__(self) -> str:
        state = "not read" if not self._has_begun else "being read"
        return f"<Stream, {state if self._reply is None else self._reply}>"

    def read(self) -> Reply:
        """Read the stream to its end; its reply."""
        for _ in self:
            pass
        return self.reply

    @property
    def reply(self) -> Reply:
        """The whole reply.

        Raises:
            LabError: the stream was not read to its end.
        """
        if self._reply is None:
            raise LabError("the reply is not complete: read the stream to its end first")
        return self._reply


def final_header(encoding: tiktoken.Encoding, *, inside_message: bool) -> list[int]:
    """The ids that begin the final message: after an open message that it ends, or after
    `assistant`."""
    ids, text = specials(encoding).ids, encoding.encode_ordinary
    ended = [ids[END], ids[START], *text("assistant")] if inside_message else []
    return [*ended, ids[CHANNEL], *text("final"), ids[MESSAGE]]

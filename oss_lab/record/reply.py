"""A reply: what came back for one prompt, by channel, with every token that made it.

`ReplyBuilder` is fed tokens while they are generated, turns them into Harmony events, and ends an
analysis that outgrows its budget by writing the header of `final` in the model's stead. A `Stream`
is one builder with its tokens still to come.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import tiktoken

from oss_lab.engine.generate import Token
from oss_lab.errors import LabError
from oss_lab.harmony import Conversation, Diagnostic, Event, Message, StreamParser
from oss_lab.harmony.specials import (
    CALL,
    CHANNEL,
    END,
    ENDOFTEXT,
    MESSAGE,
    RETURN,
    START,
    specials,
)

if TYPE_CHECKING:
    from oss_lab.record.trace import Trace

Stop = Literal["return", "call", "endoftext", "length"]
STOP_OF_TOKEN: dict[str, Stop] = {RETURN: "return", CALL: "call", ENDOFTEXT: "endoftext"}


@dataclass(frozen=True)
class ToolCall:
    """A message to a tool: `functions.add` with its arguments as the text that was written."""

    name: str
    arguments: str
    channel: str | None


@dataclass(frozen=True)
class Timing:
    """Seconds from the start of generation (prefill included) to the first and the last token."""

    first_token: float
    total: float
    tokens: int

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed: tokens after the first over the time after it."""
        later = self.total - self.first_token
        return (self.tokens - 1) / later if later > 0 else float("nan")


@dataclass(frozen=True)
class Reply:
    """One assistant turn.

    Attributes:
        prompt: the conversation that was continued; `conversation` has the reply appended.
        prompt_tokens: ids of the rendered prompt.
        tokens: what was generated after them, with probabilities; `ids` are their ids alone.
        messages: what the assistant wrote, in order, all channels.
        stop: why it ended: `return` (answered), `call` (waits for a tool), `endoftext` (gave up on
            the format), `length` (max_tokens, or the context is full).
        diagnostics: what was malformed in the stream; empty for well-formed Harmony.
        trace: what was recorded while it was written, over all tokens but the last, which the model
            wrote and did not read; None if nothing was asked for.
    """

    prompt: Conversation
    prompt_tokens: tuple[int, ...]
    tokens: tuple[Token, ...]
    messages: tuple[Message, ...]
    stop: Stop
    diagnostics: tuple[Diagnostic, ...]
    timing: Timing
    trace: "Trace | None" = None

    @property
    def analysis(self) -> str:
        """The chain of thought: everything on the analysis channel."""
        return self._on("analysis")

    @property
    def commentary(self) -> str:
        """Preambles on the commentary channel; calls are in `tool_calls`."""
        return self._on("commentary")

    @property
    def final(self) -> str:
        """The answer, "" if there is none."""
        return self._on("final")

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(
            ToolCall(message.recipient, message.text, message.channel)
            for message in self.messages
            if message.recipient and message.role == "assistant"
        )

    @property
    def conversation(self) -> Conversation:
        """The prompt and this reply, to go on from."""
        return Conversation((*self.prompt.messages, *self.messages))

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(token.id for token in self.tokens)

    def _on(self, channel: str) -> str:
        own = (m for m in self.messages if m.role == "assistant" and not m.recipient)
        return "\n".join(message.text for message in own if message.channel == channel)


@dataclass
class ReplyBuilder:
    """Collects one row of a generation."""

    encoding: tiktoken.Encoding
    prompt: Conversation
    prompt_tokens: tuple[int, ...]
    analysis_budget: int | None = None
    tokens: list[Token] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.analysis_budget is not None and self.analysis_budget < 0:
            raise LabError(f"analysis_budget is {self.analysis_budget}; it must be 0 or more")
        self.parser = StreamParser(self.encoding, role="assistant")
        self._thought = 0  # tokens of analysis so far
        self._forced: list[int] = []
        self._began = time.perf_counter()
        self._first = self._last = 0.0

    def add(self, token: Token) -> list[Event]:
        """Take the next token; returns the events that it brought."""
        self.tokens.append(token)
        self._last = time.perf_counter() - self._began
        self._first = self._first or self._last
        self._thought += self._is_thinking()
        return self.parser.feed(token.id)

    def next_forced(self) -> int | None:
        """The id to write next where the analysis has used up its budget."""
        spent = self.analysis_budget is not None and self._thought >= self.analysis_budget
        if not self._forced and spent and self._is_thinking():
            self._forced = final_header(self.encoding, inside_message=True)
        return self._forced.pop(0) if self._forced else None

    def finish(self) -> tuple[list[Event], Reply]:
        """Close what is open; returns the last events and the reply."""
        events = self.parser.finish()
        reply = Reply(
            self.prompt,
            self.prompt_tokens,
            tuple(self.tokens),
            tuple(self.parser.messages),
            self._stop(),
            tuple(self.parser.diagnostics),
            Timing(self._first, self._last, len(self.tokens)),
        )
        return events, reply

    def _is_thinking(self) -> bool:
        parser = self.parser  # a call to a tool on this channel is no thought
        return parser.state == "Content" and parser.channel == "analysis" and not parser.recipient

    def _stop(self) -> Stop:
        last = specials(self.encoding).names.get(self.tokens[-1].id, "") if self.tokens else ""
        return STOP_OF_TOKEN.get(last, "length")


class Stream:
    """Events of a reply in the making; `reply` is there once the events are used up."""

    reply: Reply

    def __init__(
        self,
        builder: ReplyBuilder,
        tokens: Iterator[tuple[int, Token]],
        recorded: "Callable[[Sequence[int]], Trace] | None" = None,
    ) -> None:
        self._builder, self._tokens, self._recorded = builder, tokens, recorded

    def __iter__(self) -> Iterator[Event]:
        for _, token in self._tokens:
            yield from self._builder.add(token)
        events, self.reply = self._builder.finish()
        if self._recorded is not None:
            read = [*self.reply.prompt_tokens, *self.reply.ids][:-1]
            self.reply = replace(self.reply, trace=self._recorded(read))
        yield from events


def final_header(encoding: tiktoken.Encoding, *, inside_message: bool) -> list[int]:
    """What begins the final message: behind an open message that it ends, or behind `assistant`."""
    ids, text = specials(encoding).ids, encoding.encode_ordinary
    ended = [ids[END], ids[START], *text("assistant")] if inside_message else []
    return [*ended, ids[CHANNEL], *text("final"), ids[MESSAGE]]

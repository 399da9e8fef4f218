"""A reply: the model's text for one prompt, by channel, with every token. Plain data."""

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Literal

from oss_lab.errors import shorten
from oss_lab.harmony import Conversation, Diagnostic, Message
from oss_lab.harmony.exchanges import is_call
from oss_lab.harmony.policy import is_final
from oss_lab.record.token import Token

if TYPE_CHECKING:
    from oss_lab.record.trace import Trace

Stop = Literal["return", "call", "endoftext", "length", "text", "invented"]
SHOWN = 60  # characters of the answer in the repr


@dataclass(frozen=True)
class ToolCall:
    """A message to a tool: `functions.add` with its arguments as text."""

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


@dataclass(frozen=True, repr=False)
class Reply:
    """One assistant turn, or the continuation of raw text.

    Attributes:
        prompt: the conversation that was continued; None for raw text.
        prompt_tokens: ids of the rendered prompt.
        tokens: the tokens generated after them, with log-probabilities; `ids` has only the ids.
        text: `tokens` as text, special tokens by name.
        messages: the messages that the assistant wrote, in order, on all channels. They end before
            the first message that it wrote for another author.
        stop: why it ended: `return` (its turn is over), `call` (waits for a tool), `endoftext`
            (ended outside the format), `length` (max_tokens, or the context is full), `text` (a
            stop string), `invented` (began a message of another author).
        diagnostics: what was malformed in the stream; empty for well-formed Harmony.
        engine: the engine that computed it; `engine_reason` is why kernels were not used although
            they were requested, or None.
        trace: activations recorded during generation, without the last token, which was sampled
            but never fed back to the model; None if none were requested.
        warnings: what the rendering of the prompt lost, one sentence each.
        unfinished: whether the last message was cut before its end; None if it is not known, which
            counts as cut if the reply stopped at `length`.
        parts: the parts that were replaced by a learner's functions.
    """

    prompt: Conversation | None
    prompt_tokens: tuple[int, ...]
    tokens: tuple[Token, ...]
    text: str
    messages: tuple[Message, ...]
    stop: Stop
    diagnostics: tuple[Diagnostic, ...]
    timing: Timing
    engine: str = "reference"
    engine_reason: str | None = None
    trace: "Trace | None" = None
    warnings: tuple[str, ...] = ()
    unfinished: bool | None = None
    parts: tuple[str, ...] = ()

    @property
    def analysis(self) -> str | None:
        """The chain of thought: everything on the analysis channel. None for raw text."""
        return self._on("analysis")

    @property
    def commentary(self) -> str | None:
        """Preambles on the commentary channel; calls are in `tool_calls`. None for raw text."""
        return self._on("commentary")

    @property
    def final(self) -> str | None:
        """The answer, "" if there is none. None for raw text."""
        return self._on("final")

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """All messages to tools, in order; the last one may be unfinished."""
        return _list_calls(self.messages)

    @property
    def open_calls(self) -> tuple[ToolCall, ...]:
        """The calls that wait for an output, in order, whatever token ended them.

        A call before an answer does not wait. No call waits if the last message was cut: continue
        it first.
        """
        if self.is_cut:
            return ()
        answers = (n for n, message in enumerate(self.messages) if is_final(message))
        return _list_calls(self.messages[max(answers, default=-1) + 1 :])

    @property
    def conversation(self) -> Conversation:
        """The prompt and this reply, to continue from.

        Only the assistant's messages: a tool's output that the model made up is not an output. A
        message that was cut before its first character is left out.
        """
        before = () if self.prompt is None else self.prompt.messages
        is_empty = self.is_cut and bool(self.messages) and not self.messages[-1].text
        kept = self.messages[:-1] if is_empty else self.messages
        return Conversation((*before, *(each for each in kept if each.role == "assistant")))

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(token.id for token in self.tokens)

    @property
    def logprobs(self) -> tuple[float, ...]:
        """Log-probability of each token, in nats."""
        return tuple(token.logprob for token in self.tokens)

    @property
    def is_cut(self) -> bool:
        """Whether the last message was cut before its end."""
        return self.stop == "length" if self.unfinished is None else self.unfinished

    def _on(self, channel: str) -> str | None:
        if self.prompt is None:
            return None
        spoken = (m for m in self.messages if m.role == "assistant" and not is_call(m))
        return "\n".join(message.text for message in spoken if message.channel == channel)

    def __repr__(self) -> str:
        what = "text" if self.prompt is None else "final" if self.final else "analysis"
        text = self.text if self.prompt is None else self.final or self.analysis or self.text
        shown = repr(shorten(text, SHOWN))
        parts = f", parts replaced: {', '.join(self.parts)}" if self.parts else ""
        return f"<Reply {what} {shown}, {len(self.tokens)} tokens, stop {self.stop!r}{parts}>"

    def _repr_html_(self) -> str:
        """The channels of the reply as escaped HTML."""
        if self.prompt is None:
            return f"<pre>{escape(self.text)}</pre>"
        folded = "".join(
            f"<details><summary>{name}</summary><pre>{escape(text)}</pre></details>"
            for name, text in (("analysis", self.analysis), ("commentary", self.commentary))
            if text
        )
        calls = "".join(
            f"<p>calls <code>{escape(call.name)}({escape(call.arguments)})</code></p>"
            for call in self.tool_calls
        )
        parts = f", parts replaced: {', '.join(self.parts)}" if self.parts else ""
        note = f"<small>{len(self.tokens)} tokens, stop: {self.stop}{parts}</small>"
        return f"<div>{folded}{calls}<pre>{escape(self.final or '')}</pre>{note}</div>"


def _list_calls(messages: tuple[Message, ...]) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(message.recipient or "", message.text, message.channel)
        for message in messages
        if is_call(message)
    )

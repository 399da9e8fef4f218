"""The exchanges of a run: a prompt and its reply; the output of a tool begins another one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import tiktoken

from oss_lab.agents.calls import CallRecord
from oss_lab.harmony import Message
from oss_lab.harmony.exchanges import is_tool
from oss_lab.record.builder import ReplyBuilder
from oss_lab.record.reply import Reply, Timing, ToolCall
from oss_widgets.sources.tools import describe_call


@dataclass
class Exchange:
    """A prompt and its reply.

    Attributes:
        start: position of the reply's first token.
        kept: how many tokens at the start are those of the exchange before.
        reply: the finished reply, or None.
        seconds: spent generating.
        first_token: seconds until the first token of the reply.
        records: of the reply's open calls those that have an output, by their place.
    """

    start: int
    builder: ReplyBuilder
    kept: int = 0
    reply: Reply | None = None
    seconds: float = 0.0
    first_token: float = 0.0
    records: dict[int, CallRecord] = field(default_factory=dict)

    @property
    def open_calls(self) -> dict[int, ToolCall]:
        """The calls of the reply that wait for an output, by their place among its open calls."""
        calls = () if self.reply is None else self.reply.open_calls
        return {n: call for n, call in enumerate(calls) if n not in self.records}

    def build_reply(self, encoding: tiktoken.Encoding, engine: str) -> Reply:
        """The reply so far."""
        builder = ReplyBuilder(encoding, self.builder.prompt, self.builder.prompt_tokens)
        for token in self.builder.tokens:
            builder.add(token)
        reply = builder.finish()[1]
        timing = Timing(self.first_token, self.seconds, len(self.builder.tokens))
        return replace(reply, timing=timing, engine=engine)


def list_messages(exchanges: Sequence[Exchange]) -> list[dict[str, Any]]:
    """The messages after the first prompt as plain data; the last one may be open."""
    first, last = exchanges[0].builder, exchanges[-1].builder
    opening = len(first.prompt.messages) if first.prompt else 0
    before = last.prompt.messages[opening:] if last.prompt else ()
    return [*map(describe_message, before), *list_own_messages(exchanges[-1])]


def list_own_messages(exchange: Exchange) -> list[dict[str, Any]]:
    """The messages of a reply as plain data; the last one may be open."""
    parser = exchange.builder.parser
    if parser is None:
        return []
    found = [describe_message(each) for each in parser.messages]
    if parser.state == "Content":
        names = {"role": parser.role, "channel": parser.channel, "recipient": parser.recipient}
        found.append({**names, "text": parser.content, "isOpen": True})
    return found


def describe_message(message: Message) -> dict[str, Any]:
    """A complete message as plain data."""
    return {
        "role": message.author.role,
        "channel": message.channel,
        "recipient": message.recipient,
        "text": message.text,
        "isOpen": False,
    }


def list_calls(exchanges: Sequence[Exchange]) -> list[dict[str, Any]]:
    """Every call with what is known of its output, in the order of the messages."""
    found = []
    for part in exchanges:
        calls = [each for each in list_own_messages(part) if is_call_message(each)]
        first = len(calls) - (len(part.reply.open_calls) if part.reply else 0)
        found += [
            describe_call(each["recipient"], each["text"], part.records.get(n - first))
            for n, each in enumerate(calls)
        ]
    return found


def is_call_message(message: Mapping[str, Any]) -> bool:
    """Whether a message as plain data is a call."""
    return message["role"] == "assistant" and is_tool(message["recipient"])


def list_diagnostics(exchanges: Sequence[Exchange]) -> list[dict[str, Any]]:
    """What is wrong with the format of the replies, as plain data."""
    return [
        {"code": each.kind.value, "sentence": each.message, "token": part.start + each.position}
        for part in exchanges
        for each in (part.builder.parser.diagnostics if part.builder.parser else ())
    ]

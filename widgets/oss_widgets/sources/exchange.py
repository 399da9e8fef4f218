"""The exchanges of a run: a prompt and its reply; the output of a tool begins another one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import tiktoken

from oss_lab.record.builder import ReplyBuilder
from oss_lab.record.reply import Reply, Timing


@dataclass
class Exchange:
    """A prompt and its reply.

    Attributes:
        start: position of the reply's first token.
        kept: how many tokens at the start are those of the exchange before.
        reply: the finished reply, or None.
        seconds: spent generating.
        first_token: seconds until the first token of the reply.
    """

    start: int
    builder: ReplyBuilder
    kept: int = 0
    reply: Reply | None = None
    seconds: float = 0.0
    first_token: float = 0.0

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
    done = [*before, *(last.parser.messages if last.parser else ())]
    found = [
        {
            "role": message.author.role,
            "channel": message.channel,
            "recipient": message.recipient,
            "text": message.text,
            "isOpen": False,
        }
        for message in done
    ]
    parser = last.parser
    if parser is not None and parser.state == "Content":
        names = {"role": parser.role, "channel": parser.channel, "recipient": parser.recipient}
        found.append({**names, "text": parser.content, "isOpen": True})
    return found


def list_diagnostics(exchanges: Sequence[Exchange]) -> list[dict[str, Any]]:
    """What is wrong with the format of the replies, as plain data."""
    return [
        {"code": each.kind.value, "sentence": each.message, "token": part.start + each.position}
        for part in exchanges
        for each in (part.builder.parser.diagnostics if part.builder.parser else ())
    ]

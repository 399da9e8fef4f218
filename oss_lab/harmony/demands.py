"""What the system message demands of the messages after it.

It lists the channels ("Channel must be included for every message"), says where calls must go, and,
with the developer message, declares the tools. Each kind of message ends with its own stop token.
The parser reports every deviation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from oss_lab.harmony.events import DiagnosticKind as Kind
from oss_lab.harmony.header import CONTENT_TYPES, HeaderFields
from oss_lab.harmony.messages import CHANNELS, DeveloperContent, Message, SystemContent
from oss_lab.harmony.specials import CALL, CONSTRAIN, END, RETURN

FUNCTIONS = "functions."
Problem = tuple[Kind, str]


@dataclass(frozen=True, slots=True)
class Demands:
    """What a stream must satisfy.

    Attributes:
        recipients: the declared tools; None allows any.
        channels: the channels of the assistant's messages; if empty, a message needs none.
        is_reply: the stream is what the model wrote as the assistant, so no other author may occur.
    """

    recipients: Collection[str] | None = None
    channels: Collection[str] = CHANNELS
    is_reply: bool = False

    def check_header(self, header: HeaderFields) -> list[Problem]:
        """The deviations of a header that is complete."""
        problems = self._check_author(header)
        channel, by_assistant = header.channel, header.author.role == "assistant"
        if channel is not None and channel not in (self.channels or CHANNELS):
            problems.append((Kind.UNKNOWN_CHANNEL, f"unknown channel {channel!r}"))
        reported = header.has(Kind.EMPTY_CHANNEL, Kind.UNKNOWN_CHANNEL)
        if by_assistant and channel is None and self.channels and not reported:
            problems.append((Kind.MISSING_CHANNEL, "the message has no channel"))
        problems += self._check_call(header) if by_assistant else self._check_recipient(header)
        kind = (header.content_type or "").removeprefix(CONSTRAIN).strip()
        if kind and kind not in CONTENT_TYPES:
            problems.append((Kind.UNKNOWN_CONTENT_TYPE, f"unknown content type {kind!r}"))
        return problems

    def check_stop(self, header: HeaderFields, stop: str) -> list[Problem]:
        """The deviations of the special token that ends a message."""
        if header.author.role == "assistant" and not header.recipient and stop == CALL:
            if self._lacks_recipient(header):
                return []  # reported with the header
            return [(Kind.MISSING_RECIPIENT, f"{CALL} ends a message without a recipient")]
        expected = _list_stops(header)
        if stop in expected:
            return []
        what = "a call" if header.recipient else f"a message on {header.channel or 'no channel'}"
        return [(Kind.WRONG_STOP, f"{stop} ends {what}; expected {' or '.join(expected)}")]

    def check_end(self, last: Message) -> list[Problem]:
        """The deviation of a stream that ends after this message."""
        if not self.is_reply or last.role != "assistant" or last.recipient:
            return []
        if last.channel not in ("analysis", "commentary"):
            return []
        return [(Kind.UNFINISHED_TURN, "the stream ended before an answer or a call")]

    def _check_author(self, header: HeaderFields) -> list[Problem]:
        author, problems = header.author, list[Problem]()
        is_known = self.recipients is None or author.name in self.recipients
        if author.role == "tool" and not is_known and not header.has(Kind.UNKNOWN_AUTHOR):
            message = f"{author.name!r} is neither a role nor a declared tool"
            problems.append((Kind.UNKNOWN_AUTHOR, message))
        if self.is_reply and author.role != "assistant":
            who = author.name or author.role
            message = f"the model wrote a message of {who!r}; the reply ends before it"
            problems.append((Kind.INVENTED_MESSAGE, message))
        return problems

    def _check_call(self, header: HeaderFields) -> list[Problem]:
        name, known = header.recipient, self.recipients
        if not name:
            missing = (Kind.MISSING_RECIPIENT, "a message with a content type names no recipient")
            return [missing] if self._lacks_recipient(header) else []
        problems = self._check_recipient(header)
        places = [each for each in ("commentary", "analysis") if each in self.channels]
        if known is not None and name.startswith(FUNCTIONS):
            places = places[:1]
        if places and header.channel in self.channels and header.channel not in places:
            message = f"a call of {name!r} on {header.channel}; expected {' or '.join(places)}"
            problems.append((Kind.WRONG_CHANNEL, message))
        return problems

    def _check_recipient(self, header: HeaderFields) -> list[Problem]:
        name, known = header.recipient, self.recipients
        if header.author.role != "assistant":
            known = None if known is None else ("assistant",)
        if not name or known is None or name in known:
            return []
        return [(Kind.UNKNOWN_RECIPIENT, f"unknown recipient {name!r}")]

    def _lacks_recipient(self, header: HeaderFields) -> bool:
        """Whether a content type shows that the message is a call, although it names no tool."""
        reported = header.has(Kind.RECIPIENT_NOT_A_TOOL, Kind.MALFORMED_RECIPIENT)
        typed = header.content_type is not None and header.channel in ("analysis", "commentary")
        return typed and not header.recipient and not reported


def _list_stops(header: HeaderFields) -> tuple[str, ...]:
    """The special tokens that may end a message."""
    if header.author.role != "assistant":
        return (END,)
    if header.recipient:
        return (CALL,)
    return (END,) if header.channel in ("analysis", "commentary") else (RETURN, END)


def find_declared_tools(messages: Iterable[Message]) -> frozenset[str] | None:
    """The tools that the system and developer messages declare.

    None if there is no such message, or if one is plain text, which may declare tools in its own
    way.
    """
    names, is_known = set[str](), False
    for message in messages:
        for part in message.content:
            if isinstance(part, SystemContent | DeveloperContent):
                is_known = True
                for space in (part.tools or {}).values():
                    names |= {f"{space.name}.{tool.name}" for tool in space.tools} or {space.name}
            elif message.role in ("system", "developer"):
                return None
    return frozenset(names) if is_known else None


def find_demanded_channels(messages: Iterable[Message]) -> tuple[str, ...]:
    """The channels that the system message demands; empty if a message needs none."""
    for message in messages:
        for part in message.content:
            if isinstance(part, SystemContent):
                config = part.channel_config
                return config.valid_channels if config and config.channel_required else ()
    return CHANNELS

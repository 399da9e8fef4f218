"""Pair tool calls with their outputs.

Harmony has no call ids. An output is a message of role `tool`, with the called name as its author.
The nth output of a tool belongs to the nth call to it that has none. A user message ends the wait:
the model no longer expects an output of an earlier call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from oss_lab.harmony.messages import ROLES, Message

NOT_TOOLS = frozenset({*ROLES, "all"})  # recipients that are not tools


class Exchange(NamedTuple):
    """Indices of a call and its output. One of them is None if it is missing.

    `is_open`: the call has no output, and no user message follows that would end the wait.
    """

    call: int | None
    output: int | None
    is_open: bool = False


def is_tool(recipient: str | None) -> bool:
    """Whether a recipient is a tool; `assistant`, `user` and `all` are not."""
    return bool(recipient) and recipient not in NOT_TOOLS


def is_call(message: Message) -> bool:
    """Whether this is the assistant's message to a tool."""
    return message.role == "assistant" and is_tool(message.recipient)


def pair_calls(messages: Sequence[Message]) -> list[Exchange]:
    """All calls and outputs of a conversation, in the order of their first message.

    >>> call = Message.of("assistant", "{}", recipient="functions.f")
    >>> output = Message.of("tool", "4", name="functions.f")
    >>> pair_calls([call, output, output])
    [Exchange(call=0, output=1, is_open=False), Exchange(call=None, output=2, is_open=False)]
    """
    found: list[Exchange] = []
    waiting: list[int] = []
    for index, message in enumerate(messages):
        if message.role == "user":
            found += (Exchange(call, None) for call in waiting)
            waiting = []
        elif is_call(message):
            waiting.append(index)
        elif message.role == "tool":
            name = message.author.name
            call = next((each for each in waiting if messages[each].recipient == name), None)
            if call is not None:
                waiting.remove(call)
            found.append(Exchange(call, index))
    found += (Exchange(call, None, is_open=True) for call in waiting)
    return sorted(found, key=lambda each: min(n for n in each[:2] if n is not None))

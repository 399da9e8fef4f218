"""One round of a run: a reply, its calls, and the messages that they add to the conversation."""

from dataclasses import dataclass

from oss_lab.agents.calls import CallRecord
from oss_lab.harmony.exchanges import is_call
from oss_lab.harmony.messages import Message
from oss_lab.record.reply import Reply


@dataclass(frozen=True)
class Round:
    """A reply and its calls. `reply` is None if the given conversation already had the calls."""

    reply: Reply | None
    calls: tuple[CallRecord, ...] = ()


def list_own_messages(reply: Reply | None) -> tuple[Message, ...]:
    """The messages that a reply adds to its prompt.

    A call that was cut is left out: half of its arguments must never be run. It stays in
    `reply.messages`.
    """
    if reply is None:
        return ()
    before = 0 if reply.prompt is None else len(reply.prompt)
    messages = reply.conversation.messages[before:]
    return messages[:-1] if reply.is_cut and messages and is_call(messages[-1]) else messages


def list_output_messages(calls: tuple[CallRecord, ...]) -> list[Message]:
    """The outputs of the calls that have one."""
    return [call.message for call in calls if call.message is not None]

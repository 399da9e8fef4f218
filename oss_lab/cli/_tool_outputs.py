"""Collects the outputs that a user types for the open calls of a reply, one call after the other.

No tool is run. The model continues once each call has its output.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oss_lab.harmony.messages import Message
    from oss_lab.record.reply import Reply, ToolCall


@dataclass
class ToolOutputs:
    """The outputs of the calls in `reply.open_calls`, in their order.

    Attributes:
        reply: None before the first reply.
        given: the outputs so far.
    """

    reply: "Reply | None"
    given: list[str] = field(default_factory=list)

    @property
    def call(self) -> "ToolCall | None":
        """The call that needs the next output; None if none does."""
        calls = self.reply.open_calls if self.reply else ()
        return calls[len(self.given)] if len(self.given) < len(calls) else None

    @property
    def place(self) -> str:
        """`call 1 of 2: `, or "" for a single call."""
        count = len(self.reply.open_calls) if self.reply else 0
        return f"call {len(self.given) + 1} of {count}: " if count > 1 else ""

    def take_messages(self) -> "list[Message]":
        """The outputs as messages, in the order of the calls; empties the collection."""
        from oss_lab.record.calls import tool_message

        assert self.reply is not None
        pairs = zip(self.reply.open_calls, self.given, strict=True)
        messages = [tool_message(call, output) for call, output in pairs]
        self.given = []
        return messages

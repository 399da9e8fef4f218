"""Calls that wait for their tools: outputs as messages. No tool is run."""

from collections.abc import Callable

from oss_lab.harmony.messages import Conversation, Message
from oss_lab.record.reply import Reply, ToolCall

ROUNDS = 8  # replies to one question; the calls of the last are not answered


def tool_message(call: ToolCall, output: str) -> Message:
    """The output as Harmony writes it: from the tool, to the assistant, on the call's channel."""
    channel = call.channel or "commentary"
    return Message.of("tool", output, name=call.name, channel=channel, recipient="assistant")


def outputs_of(reply: Reply, output: Callable[[ToolCall], str | None]) -> list[Message]:
    """A message for every call that the reply waits for; none where one output is not known."""
    outputs = [(call, output(call)) for call in reply.tool_calls]
    if reply.stop != "call":
        return []
    said = [tool_message(call, text) for call, text in outputs if text is not None]
    return said if len(said) == len(outputs) else []


def with_outputs(reply: Reply, output: Callable[[ToolCall], str | None]) -> Conversation | None:
    """The conversation to go on from behind these outputs; None where it does not go on."""
    said = outputs_of(reply, output)
    return Conversation((*reply.conversation.messages, *said)) if said else None

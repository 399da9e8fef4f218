"""Add the outputs of tool calls to a conversation, as messages. No tool is run here."""

from collections.abc import Callable

from oss_lab.harmony.messages import Conversation, Message
from oss_lab.record.reply import Reply, ToolCall

ROUNDS = 8  # maximum replies to one question; calls in the last one get no output


def tool_message(call: ToolCall, output: str) -> Message:
    """An output as a Harmony message: from the tool, to the assistant, on the call's channel."""
    channel = call.channel or "commentary"
    return Message.of("tool", output, name=call.name, channel=channel, recipient="assistant")


def build_output_messages(reply: Reply, output: Callable[[ToolCall], str | None]) -> list[Message]:
    """One message per call in `reply.open_calls`, in their order; empty if any output is None.

    The order matches outputs to calls: the nth output of a tool answers the nth call to it.
    """
    outputs = [(call, output(call)) for call in reply.open_calls]
    messages = [tool_message(call, text) for call, text in outputs if text is not None]
    return messages if len(messages) == len(outputs) else []


def append_outputs(reply: Reply, output: Callable[[ToolCall], str | None]) -> Conversation | None:
    """The conversation with these outputs, to continue from; None if it does not continue."""
    messages = build_output_messages(reply, output)
    return Conversation((*reply.conversation.messages, *messages)) if messages else None

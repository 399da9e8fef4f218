"""Calls that wait for their tools: outputs as messages, and replies over them. No tool is run."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from oss_lab.harmony.messages import Conversation, Message
from oss_lab.record.reply import Reply, ToolCall

if TYPE_CHECKING:
    from oss_lab.lab import Lab

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


def replies_to(
    lab: "Lab", prompt: Conversation, tool_outputs: Mapping[str, str], *, max_tokens: int
) -> list[Reply]:
    """One reply, and another after each call whose output is known; ROUNDS at the most."""
    replies: list[Reply] = []
    going: Conversation | None = prompt
    while going is not None and len(replies) < ROUNDS:
        replies.append(lab.chat(going, max_tokens=max_tokens))
        going = with_outputs(replies[-1], lambda call: tool_outputs.get(call.arguments))
    return replies

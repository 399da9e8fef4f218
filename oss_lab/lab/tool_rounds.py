"""Replies with tool calls whose outputs are already known; no tool is run."""

from collections.abc import Mapping

from oss_lab.harmony import Conversation
from oss_lab.lab.workbench import Lab
from oss_lab.record.calls import ROUNDS, append_outputs
from oss_lab.record.reply import Reply


def chat_with_outputs(
    lab: Lab, prompt: Conversation, tool_outputs: Mapping[str, str], *, max_tokens: int
) -> list[Reply]:
    """Generate a reply, and another after each call with a known output; at most ROUNDS."""
    replies: list[Reply] = []
    waiting: Conversation | None = prompt
    while waiting is not None and len(replies) < ROUNDS:
        replies.append(lab.chat(waiting, max_tokens=max_tokens))
        waiting = append_outputs(replies[-1], lambda call: tool_outputs.get(call.arguments))
    return replies

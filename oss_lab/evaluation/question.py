"""What can be asked: a prompt for each effort, a grade for the reply, an output for each call.

Questions of any source are used through the protocol alone. Tools are not run: a tool's output is
text that came with the question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from oss_lab.evaluation.grade import Answer
from oss_lab.harmony.messages import (
    Conversation,
    DeveloperContent,
    Effort,
    Message,
    SystemContent,
    ToolDescription,
    function_tools,
)
from oss_lab.record.reply import ToolCall


class Question(Protocol):
    """One question. Its repr says everything that decides a score, as a dataclass's does: a
    stopped run goes on only if it is the same."""

    @property
    def name(self) -> str:
        """The row of the table that it counts toward."""
        ...

    def prompt(self, effort: Effort) -> Conversation:
        """What the model is given."""
        ...

    def is_right(self, messages: Sequence[Message]) -> bool:
        """Grade everything behind the prompt, tool outputs included."""
        ...

    def tool_output(self, call: ToolCall) -> str | None:
        """What a call gets, or None if it cannot be answered."""
        ...


@dataclass(frozen=True)
class Tool:
    """A function that the model may call, and the output that every call gets (None: no output)."""

    description: ToolDescription
    result: str | None = None


@dataclass(frozen=True)
class FileQuestion:
    """A question of a file: text with an answer, perhaps instructions and tools."""

    name: str
    text: str
    answer: Answer
    developer: str | None = None
    tools: tuple[Tool, ...] = ()

    def prompt(self, effort: Effort) -> Conversation:
        """System, developer where there are instructions or tools, user."""
        messages = [Message.of("system", SystemContent(reasoning_effort=effort))]
        if self.developer is not None or self.tools:
            described = [tool.description for tool in self.tools]
            declared = function_tools(described) if described else None
            messages.append(Message.of("developer", DeveloperContent(self.developer, declared)))
        return Conversation.of(*messages, Message.of("user", self.text))

    def is_right(self, messages: Sequence[Message]) -> bool:
        """Whether there is a final answer and it is accepted."""
        final = final_text(messages)
        return final is not None and self.answer.accepts(final)

    def tool_output(self, call: ToolCall) -> str | None:
        """The result of the tool that is called, whatever the arguments."""
        results = {f"functions.{tool.description.name}": tool.result for tool in self.tools}
        return results.get(call.name)


def final_text(messages: Sequence[Message]) -> str | None:
    """The assistant's final answer after the last tool output; None if there is none.

    >>> final_text([Message.of("assistant", "4", channel="final")])
    '4'
    """
    spoken: list[str] = []
    for message in messages:
        if message.role == "tool":
            spoken.clear()
        elif message.channel == "final" and message.role == "assistant" and not message.recipient:
            spoken.append(message.text)
    return "\n".join(spoken) if spoken else None

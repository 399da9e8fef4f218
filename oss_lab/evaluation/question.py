"""The interface of a question: a prompt per effort, a grade for the reply, outputs for tool calls.

Questions from every source are used only through the `Question` protocol. Tools are not executed: a
tool's output is text that comes with the question.
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
    make_function_tools,
)
from oss_lab.record.reply import ToolCall


class Question(Protocol):
    """One question. Its repr must contain everything that determines a score, as the repr of a
    dataclass does: a stopped run resumes only if the repr is the same."""

    @property
    def name(self) -> str:
        """The row of the score table that it counts toward."""
        ...

    def prompt(self, effort: Effort) -> Conversation:
        """The conversation that the model is asked to continue."""
        ...

    def is_right(self, messages: Sequence[Message]) -> bool:
        """Grade all messages after the prompt, including tool outputs."""
        ...

    def tool_output(self, call: ToolCall) -> str | None:
        """The output for a call, or None if the call cannot be answered."""
        ...


@dataclass(frozen=True)
class Tool:
    """A function that the model may call, and the output of every call (None: no output)."""

    description: ToolDescription
    result: str | None = None


@dataclass(frozen=True)
class FileQuestion:
    """A question from a file: a text and its answer, optionally with instructions and tools."""

    name: str
    text: str
    answer: Answer
    developer: str | None = None
    tools: tuple[Tool, ...] = ()

    def prompt(self, effort: Effort) -> Conversation:
        """System message, developer message if there are instructions or tools, user message."""
        messages = [Message.of("system", SystemContent(reasoning_effort=effort))]
        if self.developer is not None or self.tools:
            described = [tool.description for tool in self.tools]
            declared = make_function_tools(described) if described else None
            messages.append(Message.of("developer", DeveloperContent(self.developer, declared)))
        return Conversation.of(*messages, Message.of("user", self.text))

    def is_right(self, messages: Sequence[Message]) -> bool:
        """Whether there is a final answer and `answer` accepts it."""
        final = find_final_text(messages)
        return final is not None and self.answer.accepts(final)

    def tool_output(self, call: ToolCall) -> str | None:
        """The result of the called tool, whatever the arguments."""
        results = {f"functions.{tool.description.name}": tool.result for tool in self.tools}
        return results.get(call.name)


def find_final_text(messages: Sequence[Message]) -> str | None:
    """The assistant's final answer after the last tool output; None if there is none.

    >>> find_final_text([Message.of("assistant", "4", channel="final")])
    '4'
    """
    spoken: list[str] = []
    for message in messages:
        if message.role == "tool":
            spoken.clear()
        elif message.channel == "final" and message.role == "assistant" and not message.recipient:
            spoken.append(message.text)
    return "\n".join(spoken) if spoken else None

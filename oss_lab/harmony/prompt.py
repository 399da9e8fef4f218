"""From what a person types to a conversation: a question, or messages in one of two forms."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from oss_lab.errors import LabError
from oss_lab.harmony.messages import (
    EFFORTS,
    Conversation,
    DeveloperContent,
    Effort,
    Message,
    SystemContent,
    function_tools,
    with_effort,
)
from oss_lab.harmony.openai_messages import conversation_of
from oss_lab.harmony.tool_forms import ToolForm, tool_descriptions

Question = str | Conversation | Sequence[Mapping[str, Any]]
"""A question, a conversation, or OpenAI-style messages."""

Given = TypeVar("Given")


def prompt_of(
    question: Question,
    *,
    effort: Effort | None,
    default_effort: Effort,
    instructions: str | None = None,
    tools: Sequence[ToolForm] = (),
    date: str | None = None,
) -> Conversation:
    """System message, developer message if there is something in it, and the question.

    OpenAI-style messages get the same system message; their own `system` and `developer` texts
    become the developer message. A Conversation stays unchanged, except for its effort where one
    is given: it has its own instructions, tools and date.

    Raises:
        LabError: the question has another form, or a part of it cannot be used.
    """
    if effort not in (None, *EFFORTS):
        raise LabError(f"effort is {effort!r}; use one of {', '.join(EFFORTS)}")
    if isinstance(question, Conversation):
        if instructions is not None or tools or date is not None:
            raise LabError(
                "a conversation has its own system and developer messages: put instructions, tools"
                " and date there"
            )
        return question if effort is None else with_effort(question, effort)
    for name, text in (("instructions", instructions), ("date", date)):
        if text is not None and not isinstance(text, str):
            raise LabError(f"{name}: expected text, got {shown(text)}")
    described = tool_descriptions(tools)
    effort = effort or default_effort
    if not isinstance(question, str):
        if not is_messages(question):
            raise LabError(
                "expected a question, a Conversation or a list of messages such as"
                f' {{"role": "user", "content": "..."}}, got {shown(question)}'
            )
        return conversation_of(
            question, effort=effort, date=date, instructions=instructions, tools=described
        )
    system = SystemContent(reasoning_effort=effort, conversation_start_date=date)
    messages = [Message.of("system", system)]
    if instructions is not None or described:
        declared = function_tools(described) if described else None
        messages.append(Message.of("developer", DeveloperContent(instructions, declared)))
    return Conversation.of(*messages, Message.of("user", question))


def several(given: Iterable[Given], verb: str) -> Iterable[Given]:
    """A list of prompts, for the batch of a verb.

    Raises:
        LabError: it is not a list, or is a single prompt.
    """
    if isinstance(given, str | Conversation) or not isinstance(given, Iterable):
        raise LabError(f"expected a list of prompts, got {shown(given)}; for one use `{verb}`")
    return given


def is_messages(value: object) -> bool:
    """Whether it is a list of dictionaries."""
    return isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value)


def shown(value: object) -> str:
    """A value in a few characters."""
    text = repr(value)
    return text if len(text) <= 40 else f"{type(value).__name__} {text[:40]}…"

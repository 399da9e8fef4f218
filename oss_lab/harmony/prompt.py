"""Build a conversation from a question, OpenAI-style messages or a `Conversation`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from oss_lab.errors import LabError
from oss_lab.harmony.messages import (
    EFFORTS,
    Conversation,
    DeveloperContent,
    Effort,
    Message,
    ResponseFormat,
    SystemContent,
    make_function_tools,
    with_effort,
)
from oss_lab.harmony.openai_messages import convert_messages
from oss_lab.harmony.tool_forms import ToolForm, describe_tools

Question = str | Conversation | Sequence[Mapping[str, Any]]
"""A question, a conversation, or OpenAI-style messages."""

PREFACE = ("system", "developer")  # roles before the chat itself
Given = TypeVar("Given")


def build_prompt(
    question: Question,
    *,
    effort: Effort | None = None,
    default_effort: Effort,
    instructions: str | None = None,
    tools: Sequence[ToolForm] = (),
    date: str | None = None,
) -> Conversation:
    """A conversation: system message, developer message (if not empty), question.

    OpenAI-style messages get the same system message; their `system` and `developer` texts become
    the developer message. A Conversation already has instructions, tools and a date: only its
    effort is changed, if one is given.

    Raises:
        LabError: the question has another type, or a part of it cannot be used.
    """
    if effort not in (None, *EFFORTS):
        raise LabError(f"effort is {effort!r}; use one of {', '.join(EFFORTS)}")
    if isinstance(question, Conversation):
        if instructions is not None or tools or date is not None:
            raise LabError(
                "a Conversation already has system and developer messages; put instructions, tools"
                " and date there"
            )
        return question if effort is None else with_effort(question, effort)
    for name, text in (("instructions", instructions), ("date", date)):
        if text is not None and not isinstance(text, str):
            raise LabError(f"{name}: expected text, got {shorten_repr(text)}")
    described = describe_tools(tools)
    effort = effort or default_effort
    if not isinstance(question, str):
        if not is_messages(question):
            raise LabError(
                "expected a question, a Conversation or a list of messages such as"
                f' {{"role": "user", "content": "..."}}, got {shorten_repr(question)}'
            )
        return convert_messages(
            question, effort=effort, date=date, instructions=instructions, tools=described
        )
    system = SystemContent(reasoning_effort=effort, conversation_start_date=date)
    messages = [Message.of("system", system)]
    if instructions is not None or described:
        declared = make_function_tools(described) if described else None
        messages.append(Message.of("developer", DeveloperContent(instructions, declared)))
    return Conversation.of(*messages, Message.of("user", question))


def add_response_format(conversation: Conversation, format: ResponseFormat) -> Conversation:
    """The same conversation with this format in its developer message, which may be new.

    A format of the same name is replaced.
    """
    messages = list(conversation)
    for place, message in enumerate(messages):
        for n, part in enumerate(message.content):
            if isinstance(part, DeveloperContent):
                others = [each for each in part.response_formats if each.name != format.name]
                part = replace(part, response_formats=(*others, format))
                content = (*message.content[:n], part, *message.content[n + 1 :])
                messages[place] = replace(message, content=content)
                return Conversation(tuple(messages))
    place = next((n for n, each in enumerate(messages) if each.role not in PREFACE), len(messages))
    new = Message.of("developer", DeveloperContent(response_formats=(format,)))
    return Conversation((*messages[:place], new, *messages[place:]))


def require_prompts(given: Iterable[Given], single: str) -> Iterable[Given]:
    """Check that a batch function was given a list of prompts; returns the list.

    Args:
        single: the function to use for a single prompt.

    Raises:
        LabError: it is not a list, or is a single prompt.
    """
    if isinstance(given, str | Conversation) or not isinstance(given, Iterable):
        raise LabError(
            f"expected a list of prompts, got {shorten_repr(given)}; for a single prompt use"
            f" `{single}`"
        )
    return given


def is_messages(value: object) -> bool:
    """Whether `value` is a list with at least one dictionary."""
    return isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value)


def shorten_repr(value: object) -> str:
    """The repr of a value, shortened."""
    text = repr(value)
    return text if len(text) <= 40 else f"{type(value).__name__} {text[:40]}…"

"""A Conversation as the messages, tools and effort of OpenAI's chat completions.

The inverse of `harmony.openai_messages`. Harmony's calls have no ids, so each gets a number. The
reasoning of a finished turn is left out, as gpt-oss expects; that of the open turn is sent along
under the two names that engines use.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from oss_lab.errors import LabError
from oss_lab.harmony.exchanges import is_call, pair_calls
from oss_lab.harmony.messages import (
    Conversation,
    DeveloperContent,
    Effort,
    Message,
    SystemContent,
    ToolNamespace,
)
from oss_lab.harmony.policy import is_final

FUNCTIONS = "functions."


def to_api(conversation: Conversation) -> dict[str, Any]:
    """The fields `messages`, `tools` and `reasoning_effort` of a request.

    Raises:
        LabError: the API has no place for a part of the conversation.
    """
    messages = conversation.messages
    names = name_calls(messages)
    last_answer = max((n for n, each in enumerate(messages) if is_final(each)), default=-1)
    found: list[dict[str, Any]] = []
    tools: list[dict[str, Any]] = []
    effort: Effort | None = None
    for n, message in enumerate(messages):
        for part in message.content:
            if isinstance(part, SystemContent):
                effort = part.reasoning_effort
                refuse_system_fields(part)
            elif isinstance(part, DeveloperContent):
                tools += list_functions(part.tools or {})
                if part.response_formats:
                    raise LabError("response_format cannot be sent in a Conversation; leave it out")
                if part.instructions:
                    found.append({"role": "developer", "content": part.instructions})
        if message.role == "user":
            found.append({"role": "user", "content": message.text})
        elif message.role == "assistant":
            add_to_turn(found, message, names.get(n), keep_reasoning=n > last_answer)
        elif message.role == "tool":
            if n not in names:
                raise LabError(f"message {n} is an output of {message.author.name}, not called")
            found.append({"role": "tool", "tool_call_id": names[n], "content": message.text})
    return {
        "messages": found,
        **({"tools": tools} if tools else {}),
        **({"reasoning_effort": effort} if effort else {}),
    }


def name_calls(messages: Sequence[Message]) -> dict[int, str]:
    """An id for each call and its output, by the index of the message."""
    names: dict[int, str] = {}
    for number, pair in enumerate(pair_calls(messages)):
        if pair.call is not None:
            names |= {n: f"call_{number}" for n in pair[:2] if n is not None}
    return names


def add_to_turn(
    found: list[dict[str, Any]], message: Message, call: str | None, *, keep_reasoning: bool
) -> None:
    """Add a message of the assistant to the API's last message, if that is its own."""
    if message.channel == "analysis" and not is_call(message):
        if keep_reasoning:
            turn = open_turn(found, {"reasoning_content", "content", "tool_calls"})
            turn["reasoning_content"] = turn["reasoning"] = message.text
    elif is_call(message):
        name = (message.recipient or "").removeprefix(FUNCTIONS)
        function = {"name": name, "arguments": message.text}
        turn = open_turn(found, set())
        turn.setdefault("tool_calls", []).append(
            {"id": call, "type": "function", "function": function}
        )
    else:
        open_turn(found, {"content", "tool_calls"})["content"] = message.text


def open_turn(found: list[dict[str, Any]], taken: set[str]) -> dict[str, Any]:
    """The assistant's message at the end if it has none of these fields, or else a new one."""
    if not found or found[-1]["role"] != "assistant" or taken & found[-1].keys():
        found.append({"role": "assistant"})
    return found[-1]


def list_functions(spaces: Mapping[str, ToolNamespace]) -> list[dict[str, Any]]:
    """The functions as the API describes them."""
    if others := [name for name in spaces if name != FUNCTIONS[:-1]]:
        refuse_tool(others[0])
    empty = {"type": "object", "properties": {}}
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": empty if tool.parameters is None else tool.parameters,
            },
        }
        for space in spaces.values()
        for tool in space.tools
    ]


def refuse_system_fields(content: SystemContent) -> None:
    """Raise LabError for what only the engine itself writes into the system message."""
    if content.tools:
        refuse_tool(min(content.tools))
    if content.conversation_start_date is not None:
        raise LabError("date: the engine writes the system message itself; leave it out")


def refuse_tool(name: str) -> NoReturn:
    """Raise LabError for a tool that is not a function."""
    raise LabError(f"the API has functions only, so the tool {name!r} cannot be sent; leave it out")

"""Convert OpenAI's chat messages (dictionaries) to a `Conversation`.

gpt-oss expects one system message, which oss_lab writes. The texts of `system` and `developer`
messages become the developer message, wherever they are in the list. Reasoning goes to the analysis
channel, tool calls and the text next to them to commentary, the answer to final. A text with the
`phase` "commentary" goes to commentary too.

Every field of a message is converted, refused by name, or named in a `HarmonyWarning`. Text is the
only content. Call ids are only used to find the function that an output belongs to. Left out:
images, audio, files, the old `function_call`, and the items of the Responses API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from oss_lab.errors import HarmonyError
from oss_lab.harmony.messages import (
    Conversation,
    DeveloperContent,
    Effort,
    Message,
    Role,
    SystemContent,
    ToolDescription,
    make_function_tools,
)
from oss_lab.harmony.notices import warn
from oss_lab.harmony.openai_fields import (
    check_keys,
    check_mapping,
    check_string,
    get_required,
    is_empty,
    read_content,
    read_function_name,
    read_reasoning,
    read_role,
    type_name,
)
from oss_lab.harmony.specials import CONSTRAIN

_USED: dict[Role, frozenset[str]] = {
    "system": frozenset({"role", "content"}),
    "developer": frozenset({"role", "content"}),
    "user": frozenset({"role", "content"}),
    "assistant": frozenset(
        {"role", "content", "reasoning_content", "reasoning", "tool_calls", "phase"}
    ),
    "tool": frozenset({"role", "content", "tool_call_id", "name"}),
}
SHOWN = 6  # fields that a warning names
_LEFT_OUT = frozenset({"name", "annotations", "id"})  # Harmony has no place for them: a warning


def convert_messages(
    messages: Sequence[Mapping[str, Any]],
    *,
    effort: Effort,
    date: str | None = None,
    instructions: str | None = None,
    tools: Sequence[ToolDescription] = (),
) -> Conversation:
    """Convert messages in the form of OpenAI's chat completions.

    Warns (`HarmonyWarning`) about each `name` (except a tool's), `id` and `annotations` that it
    leaves out. Empty fields are ignored. Special tokens in the text stay text. A call that never
    gets an output is reported by `render`.

    >>> chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]
    >>> [message.role for message in convert_messages(chat, effort="low")]
    ['system', 'developer', 'user']

    Args:
        date: the current date, for the system message.
        instructions: appended to the texts of system and developer messages, after a blank line.
        tools: listed in the developer message; `describe_tools` converts other forms.

    Raises:
        HarmonyError: a message cannot be converted; the error names the message and the field.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise HarmonyError(f"expected a list of messages, got {type_name(messages)}")
    if not messages:
        raise HarmonyError("the list of messages is empty; give at least one message")
    for what, value in (("date", date), ("instructions", instructions)):
        if value is not None:
            check_string(value, what)
    _check_tools(tools)
    system = SystemContent(reasoning_effort=effort, conversation_start_date=date)
    reader = _Reader()
    for number, message in enumerate(messages):
        reader.read(message, number)
    if reader.left_out:
        more = len(reader.left_out) - SHOWN
        rest = f" and {more} more" if more > 0 else ""
        fields = ", ".join(reader.left_out[:SHOWN])
        warn([f"left out, because Harmony has no such field: {fields}{rest}"])
    texts = [*reader.instructions, *([] if instructions is None else [instructions])]
    opening = [Message.of("system", system)]
    if texts or tools:
        content = DeveloperContent(
            "\n\n".join(filter(None, texts)) if texts else None,
            make_function_tools(tools) if tools else None,
        )
        opening.append(Message.of("developer", content))
    return Conversation.of(*opening, *reader.messages)


def _check_tools(tools: Sequence[ToolDescription]) -> None:
    if not isinstance(tools, Sequence) or isinstance(tools, str | bytes):
        raise HarmonyError(f"expected a list of tools, got {type_name(tools)}")
    for i, tool in enumerate(tools):
        if not isinstance(tool, ToolDescription):
            raise HarmonyError(
                f"tools[{i}] must be a ToolDescription, not {type_name(tool)}; convert the list"
                " with `describe_tools`"
            )


class _Call(NamedTuple):
    """A tool call without an output yet; `function` includes the namespace."""

    id: str | None
    function: str


@dataclass(slots=True)
class _Reader:
    """Converts messages in order and keeps track of the calls."""

    messages: list[Message] = field(default_factory=list)
    instructions: list[str] = field(default_factory=list)
    waiting: list[_Call] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)  # without an output before a user message
    left_out: list[str] = field(default_factory=list)  # fields, as `messages[0].id`

    def read(self, message: Any, number: int) -> None:
        where = f"messages[{number}]"
        if not isinstance(message, Mapping):
            raise HarmonyError(
                f"{where} must be a dictionary, not {type_name(message)}; convert an object of"
                " OpenAI's package with `.model_dump()`"
            )
        role = read_role(message, where)
        check_keys(message, _USED[role] | _LEFT_OUT, where, f"a message of role {role!r}")
        self._leave_out(message, _LEFT_OUT - _USED[role], where)
        self._leave_out_annotations(message.get("content"), where)
        if role == "assistant":
            self._read_assistant(message, where)
        elif role == "tool":
            text = read_content(message, where)
            function = self._find_called_function(message, where)
            self._add(role, text, name=function, channel="commentary", recipient="assistant")
        elif role == "user":
            self.ended.update(call.id for call in self.waiting if call.id is not None)
            self.waiting.clear()
            self._add(role, read_content(message, where))
        else:
            self.instructions.append(read_content(message, where))

    def _leave_out(self, data: Mapping[str, Any], keys: AbstractSet[str], where: str) -> None:
        found = [key for key in data if key in keys and not is_empty(data[key])]
        self.left_out += [f"{where}.{key}" for key in found]

    def _leave_out_annotations(self, content: Any, where: str) -> None:
        for i, part in enumerate(content if isinstance(content, list | tuple) else ()):
            if isinstance(part, Mapping):
                self._leave_out(part, {"annotations"}, f"{where}.content[{i}]")

    def _add(self, role: Role, text: str, **header: str) -> None:
        self.messages.append(Message.of(role, text, **header))

    def _read_assistant(self, message: Mapping[str, Any], where: str) -> None:
        """Reasoning, then the text, then the calls."""
        reasoning = read_reasoning(message, where)
        calls = message.get("tool_calls")
        if calls is None:
            calls = []
        elif not isinstance(calls, list | tuple):
            raise HarmonyError(f"{where}.tool_calls must be a list, not {type_name(calls)}")
        if reasoning:
            self._add("assistant", reasoning, channel="analysis")
        silent = message.get("content") is None and bool(reasoning or calls)
        text = "" if silent else read_content(message, where)
        if text or not (reasoning or calls):  # next to reasoning or calls, "" means no text
            is_preamble = bool(calls) or message.get("phase") == "commentary"
            self._add("assistant", text, channel="commentary" if is_preamble else "final")
        for i, call in enumerate(calls):
            self._read_call(call, f"{where}.tool_calls[{i}]")
            if call.get("index") not in (None, i):
                self.left_out.append(f"{where}.tool_calls[{i}].index")

    def _read_call(self, call: Any, where: str) -> None:
        check_mapping(call, where)
        check_keys(call, {"id", "type", "function", "index"}, where, "a call")
        kind = call.get("type", "function")
        if not isinstance(kind, str) or kind != "function":
            raise HarmonyError(f"{where}.type is {kind!r}; only 'function' can be converted")
        identifier = call.get("id")
        if identifier is not None:
            check_string(identifier, f"{where}.id")
            if any(other.id == identifier for other in self.waiting):
                raise HarmonyError(
                    f"{where}.id is {identifier!r}, the id of an earlier call that has no output"
                    " yet; give each call a different id"
                )
            self.answered.discard(identifier)  # some servers restart their ids at 0 in each reply
            self.ended.discard(identifier)
        function = get_required(call, "function", where)
        where = f"{where}.function"
        check_mapping(function, where)
        check_keys(function, {"name", "arguments"}, where, "a function")
        name = read_function_name(get_required(function, "name", where), f"{where}.name")
        arguments = get_required(function, "arguments", where)
        if not isinstance(arguments, str):
            raise HarmonyError(
                f"{where}.arguments must be a string, not {type_name(arguments)}; encode it with"
                " `json.dumps`"
            )
        check_string(arguments, f"{where}.arguments")
        self.waiting.append(_Call(identifier, name))
        kind = f"{CONSTRAIN}json"
        self._add("assistant", arguments, channel="commentary", recipient=name, content_type=kind)

    def _find_called_function(self, message: Mapping[str, Any], where: str) -> str:
        """The function whose output this message is, found by the call's id or else by name."""
        identifier, name = message.get("tool_call_id"), message.get("name")
        if name is not None:
            name = read_function_name(name, f"{where}.name")
        if identifier is None:
            if name is None:
                raise HarmonyError(
                    f"{where} is missing the field `tool_call_id`; give the id of the call that it"
                    " responds to"
                )
            self._close_by_name(name, where)
            return name
        call = self._find(check_string(identifier, f"{where}.tool_call_id"), where)
        if name not in (None, call.function):
            raise HarmonyError(
                f"{where}.name is {message['name']!r}, but the call {identifier!r} is to"
                f" {call.function!r}; remove or correct the name"
            )
        self.waiting.remove(call)
        self.answered.add(identifier)
        return call.function

    def _find(self, identifier: str, where: str) -> _Call:
        """The open call with this id. Outputs of one function must be in the order of its calls."""
        where = f"{where}.tool_call_id is {identifier!r}"
        for call in self.waiting:
            if call.id == identifier:
                break
        else:
            if identifier in self.answered:
                raise HarmonyError(f"{where}, but that call already has an output; remove one")
            if identifier in self.ended:
                raise HarmonyError(
                    f"{where}, but a user message is between the call and this output; put the"
                    " output before it"
                )
            raise HarmonyError(
                f"{where}, but no earlier call has this id; add the call or correct it"
            )
        same = (each for each in self.waiting if each.function == call.function)
        if next(same) is not call:  # Harmony has no call ids, only an order
            raise HarmonyError(
                f"{where}, but an earlier call to {call.function!r} has no output yet; put the"
                " outputs in the order of the calls"
            )
        return call

    def _close_by_name(self, function: str, where: str) -> None:
        """Close the first open call to this function."""
        call = next((call for call in self.waiting if call.function == function), None)
        if call is None:
            raise HarmonyError(
                f"{where} is an output of {function!r}, but no call to it waits for one; add the"
                " call or remove the output"
            )
        self.waiting.remove(call)
        if call.id is not None:
            self.answered.add(call.id)

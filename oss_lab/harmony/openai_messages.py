"""Convert OpenAI's chat messages (dictionaries) to a `Conversation`.

gpt-oss expects one system message, which oss_lab writes. The texts of `system` and `developer`
messages become the developer message, wherever they are in the list. Reasoning goes to the analysis
channel, tool calls and the text next to them to commentary, the answer to final.

Every field of a message is either converted or refused by name. Text is the only content. Call ids
are only used to find the function that an output belongs to. Left out: images, audio, files, the
old `function_call`, and the items of the Responses API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from oss_lab.errors import HarmonyError
from oss_lab.harmony.messages import (
    ROLES,
    Conversation,
    DeveloperContent,
    Effort,
    Message,
    Role,
    SystemContent,
    ToolDescription,
    make_function_tools,
)
from oss_lab.harmony.specials import CONSTRAIN

NAMESPACE = "functions."
_USED: dict[Role, frozenset[str]] = {
    "system": frozenset({"role", "content"}),
    "developer": frozenset({"role", "content"}),
    "user": frozenset({"role", "content"}),
    "assistant": frozenset({"role", "content", "reasoning_content", "reasoning", "tool_calls"}),
    "tool": frozenset({"role", "content", "tool_call_id", "name"}),
}
_IGNORED = frozenset({"name", "annotations", "id"})  # they do not change the rendered text
_ADVICE = {
    "function_call": "write it as `tool_calls`",
    "refusal": "move its text to `content`",
    "thinking": "name it `reasoning_content`",
    "audio": "give its transcript as `content`",
}


def convert_messages(
    messages: Sequence[Mapping[str, Any]],
    *,
    effort: Effort,
    date: str | None = None,
    instructions: str | None = None,
    tools: Sequence[ToolDescription] = (),
) -> Conversation:
    """Convert messages in the form of OpenAI's chat completions.

    `name` (except a tool's), `id`, `annotations` and empty fields are ignored. Special tokens in
    the text stay text.

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
        raise HarmonyError(f"expected a list of messages, got {_type(messages)}")
    if not messages:
        raise HarmonyError("the list of messages is empty; give at least one message")
    for what, value in (("date", date), ("instructions", instructions)):
        if value is not None:
            _check_string(value, what)
    _check_tools(tools)
    system = SystemContent(reasoning_effort=effort, conversation_start_date=date)
    reader = _Reader()
    for number, message in enumerate(messages):
        reader.read(message, number)
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
        raise HarmonyError(f"expected a list of tools, got {_type(tools)}")
    for i, tool in enumerate(tools):
        if not isinstance(tool, ToolDescription):
            raise HarmonyError(
                f"tools[{i}] must be a ToolDescription, not {_type(tool)}; convert the list with"
                " `describe_tools`"
            )


class _Call(NamedTuple):
    """A tool call without an output yet; `function` includes the namespace."""

    id: str | None
    function: str
    message: int


@dataclass(slots=True)
class _Reader:
    """Converts messages in order and keeps track of the calls."""

    messages: list[Message] = field(default_factory=list)
    instructions: list[str] = field(default_factory=list)
    waiting: list[_Call] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)

    def read(self, message: Any, number: int) -> None:
        where = f"messages[{number}]"
        if not isinstance(message, Mapping):
            raise HarmonyError(
                f"{where} must be a dictionary, not {_type(message)}; convert an object of OpenAI's"
                " package with `.model_dump()`"
            )
        role = _read_role(message, where)
        _check_keys(message, _USED[role] | _IGNORED, where, f"a message of role {role!r}")
        if role == "assistant":
            self._read_assistant(message, number, where)
        elif role == "tool":
            function = self._find_called_function(message, where)
            text = _read_content(message, where)
            self._add(role, text, name=function, channel="commentary", recipient="assistant")
        elif role == "user":
            self._add(role, _read_content(message, where))
        else:
            self.instructions.append(_read_content(message, where))

    def _add(self, role: Role, text: str, **header: str) -> None:
        self.messages.append(Message.of(role, text, **header))

    def _read_assistant(self, message: Mapping[str, Any], number: int, where: str) -> None:
        """Reasoning, then the text, then the calls."""
        reasoning = _read_reasoning(message, where)
        calls = message.get("tool_calls")
        if calls is None:
            calls = []
        elif not isinstance(calls, list | tuple):
            raise HarmonyError(f"{where}.tool_calls must be a list, not {_type(calls)}")
        if reasoning:
            self._add("assistant", reasoning, channel="analysis")
        silent = message.get("content") is None and bool(reasoning or calls)
        text = "" if silent else _read_content(message, where)
        if text or not (reasoning or calls):  # next to reasoning or calls, "" means no text
            self._add("assistant", text, channel="commentary" if calls else "final")
        for i, call in enumerate(calls):
            self._read_call(call, number, f"{where}.tool_calls[{i}]")

    def _read_call(self, call: Any, number: int, where: str) -> None:
        _check_mapping(call, where)
        _check_keys(call, {"id", "type", "function", "index"}, where, "a call")
        kind = call.get("type", "function")
        if not isinstance(kind, str) or kind != "function":
            raise HarmonyError(f"{where}.type is {kind!r}; only 'function' can be converted")
        identifier = call.get("id")
        if identifier is not None:
            _check_string(identifier, f"{where}.id")
            if any(other.id == identifier for other in self.waiting):
                raise HarmonyError(
                    f"{where}.id is {identifier!r}, the id of an earlier call that has no output"
                    " yet; give each call a different id"
                )
            self.answered.discard(identifier)  # some servers restart their ids at 0 in each reply
        function = _get_required(call, "function", where)
        where = f"{where}.function"
        _check_mapping(function, where)
        _check_keys(function, {"name", "arguments"}, where, "a function")
        name = _read_function_name(_get_required(function, "name", where), f"{where}.name")
        arguments = _get_required(function, "arguments", where)
        if not isinstance(arguments, str):
            raise HarmonyError(
                f"{where}.arguments must be a string, not {_type(arguments)}; encode it with"
                " `json.dumps`"
            )
        _check_string(arguments, f"{where}.arguments")
        self.waiting.append(_Call(identifier, name, number))
        kind = f"{CONSTRAIN}json"
        self._add("assistant", arguments, channel="commentary", recipient=name, content_type=kind)

    def _find_called_function(self, message: Mapping[str, Any], where: str) -> str:
        """The function whose output this message is, found by the call's id or else by name."""
        identifier, name = message.get("tool_call_id"), message.get("name")
        if name is not None:
            name = _read_function_name(name, f"{where}.name")
        if identifier is None:
            if name is None:
                raise HarmonyError(
                    f"{where} is missing the field `tool_call_id`; give the id of the call that it"
                    " responds to"
                )
            self._close_by_name(name)
            return name
        call = self._find(_check_string(identifier, f"{where}.tool_call_id"), where)
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
            raise HarmonyError(
                f"{where}, but no earlier call has this id; add the call or correct it"
            )
        same = (each for each in self.waiting if each[1:] == call[1:])
        if next(same) is not call:  # Harmony has no call ids, only an order
            raise HarmonyError(
                f"{where}, but an earlier call to {call.function!r} has no output yet; put the"
                " outputs in the order of the calls"
            )
        return call

    def _close_by_name(self, function: str) -> None:
        """Close the first open call to this function in the last message that has one."""
        calls = [call for call in self.waiting if call.function == function]
        if calls:
            call = next(each for each in calls if each.message == calls[-1].message)
            self.waiting.remove(call)
            if call.id is not None:
                self.answered.add(call.id)


def _read_role(message: Mapping[str, Any], where: str) -> Role:
    role = _get_required(message, "role", where)
    if not isinstance(role, str) or role not in ROLES:
        raise HarmonyError(f"{where}.role is {role!r}; use one of {', '.join(ROLES)}")
    return cast(Role, role)


def _read_reasoning(message: Mapping[str, Any], where: str) -> str:
    """The reasoning, or "". Servers send it under one of two names, or under both."""
    found = {
        key: _check_string(message[key], f"{where}.{key}")
        for key in ("reasoning_content", "reasoning")
        if message.get(key) is not None
    }
    texts = {text for text in found.values() if text}
    if len(texts) > 1:
        raise HarmonyError(
            f"{where} has different texts in `reasoning_content` and `reasoning`; keep one of them"
        )
    return texts.pop() if texts else ""


def _read_content(message: Mapping[str, Any], where: str) -> str:
    content = _get_required(message, "content", where)
    where = f"{where}.content"
    if isinstance(content, str):
        return _check_string(content, where)
    if content is None:
        raise HarmonyError(f"{where} is null; give a string or a list of text parts")
    if not isinstance(content, list | tuple):
        raise HarmonyError(
            f"{where} must be a string or a list of text parts, not {_type(content)}"
        )
    if not content:
        raise HarmonyError(f"{where} is an empty list; give a string or a list of text parts")
    return "".join(_read_part(part, f"{where}[{i}]") for i, part in enumerate(content))


def _read_part(part: Any, where: str) -> str:
    _check_mapping(part, where)
    kind = _get_required(part, "type", where)
    if not isinstance(kind, str) or kind != "text":
        raise HarmonyError(f"{where}.type is {kind!r}; only parts of type 'text' can be converted")
    _check_keys(part, {"type", "text", "annotations"}, where, "a text part")
    return _check_string(_get_required(part, "text", where), f"{where}.text")


def _read_function_name(name: Any, where: str) -> str:
    """The name with its namespace. Refuses a name that a message header cannot hold."""
    bare = _check_string(name, where).removeprefix(NAMESPACE)
    if bare.split() != [bare]:
        raise HarmonyError(f"{where} is {name!r}; use a name without whitespace")
    if bare in ROLES:
        raise HarmonyError(f"{where} is {name!r}, the name of a role; rename the function")
    return NAMESPACE + bare


def _check_keys(data: Mapping[str, Any], known: AbstractSet[str], where: str, what: str) -> None:
    """Refuse keys that have a value and are not converted."""
    for key, value in data.items():
        if key not in known and not _is_empty(value):
            advice = _ADVICE.get(key, "remove it")
            raise HarmonyError(
                f"{where} has the key {key!r}, which cannot be converted in {what}; {advice}"
            )


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | tuple | Mapping) and not value)


def _check_mapping(value: Any, where: str) -> None:
    if not isinstance(value, Mapping):
        raise HarmonyError(f"{where} must be a dictionary, not {_type(value)}")


def _get_required(data: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in data:
        raise HarmonyError(f"{where} is missing the field `{key}`; add it")
    return data[key]


def _check_string(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise HarmonyError(f"{where} must be a string, not {_type(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise HarmonyError(
            f"{where} has a lone surrogate at character {error.start}, which UTF-8 cannot encode;"
            " remove it"
        ) from None
    return value


def _type(value: Any) -> str:
    return "null" if value is None else type(value).__name__

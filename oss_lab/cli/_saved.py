"""`/save` and `/load`: a conversation as a JSON file.

Messages are in the format of `oss-lab harmony render`, with one more field: `ids`, the tokens that
the model wrote, so a loaded conversation is rendered as it was. Outputs typed for some but not all
calls of a reply are not saved.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from oss_lab.cli._json import prefix_errors, read_json
from oss_lab.errors import LabError
from oss_lab.harmony import render
from oss_lab.harmony.messages import EFFORTS, Conversation, Message, TextContent
from oss_lab.harmony.wire import conversation_from_dict, message_to_dict

if TYPE_CHECKING:
    from oss_lab.cli._session import Chat
    from oss_lab.record.reply import Reply

VERSION = 1
T = TypeVar("T")


def save_chat(chat: Chat, argument: str, *, overwrite: bool = False) -> None:
    """Write the conversation to a file; refuses to replace one unless `overwrite`."""
    from oss_lab.checkpoint.atomic import check_output_file, write_text

    if argument in ("", "-"):
        raise LabError("/save needs the name of a file, such as /save chat.json")
    file = Path(argument).expanduser()
    if file.is_dir():
        raise LabError(f"{file} is a folder; /save needs the name of a file")
    check_output_file(file, "name")
    existed = file.exists()
    if existed and not overwrite:
        raise LabError(f"{file} exists; choose another name, or replace it with /save! {file}")
    with prefix_errors(file):
        write_text(file, json.dumps(chat_to_dict(chat), indent=1) + "\n")
    where = f"{file}, replacing the old file" if existed else str(file)
    chat.transcript.write_note(f"saved {count_turns(chat)} in {where}")


def load_chat(chat: Chat, argument: str) -> None:
    """Continue the conversation in a file; after a mistake, the current one is unchanged."""
    if argument in ("", "-"):  # the chat itself reads standard input
        raise LabError("/load needs the name of a file, such as /load chat.json")
    file = Path(argument).expanduser()
    with prefix_errors(file):
        read_into(chat, read_json(file))
    chat.transcript.write_note(
        f"loaded {count_turns(chat)} from {file}, effort {chat.effort}; /history shows them"
    )
    chat.note_open_call()


def count_turns(chat: Chat) -> str:
    """`1 turn`, `2 turns`."""
    count = len(chat.turns)
    return f"{count} turn" if count == 1 else f"{count} turns"


def chat_to_dict(chat: Chat) -> dict[str, Any]:
    """The conversation as JSON values. A turn has only the messages that the turn before lacks."""
    turns: list[dict[str, Any]] = []
    done = len(chat.opening)
    for reply in chat.turns:
        prompt = reply.prompt.messages if reply.prompt else ()
        turns.append(
            {
                "prompt": messages_to_dict(prompt[done:]),
                "reply": messages_to_dict(reply.messages),
                "stop": reply.stop,
                "unfinished": reply.unfinished,
            }
        )
        done = len(reply.conversation)
    return {
        "oss_lab_chat": VERSION,
        "effort": chat.effort,
        "opening": messages_to_dict(chat.opening),
        "turns": turns,
        "tool_outputs": dict(chat.tool_outputs),
    }


def read_into(chat: Chat, data: Any) -> None:
    """Replace the conversation by the saved one.

    Raises:
        LabError: a field is missing or has another type, and the message names it; or the
            conversation cannot be rendered.
    """
    if not isinstance(data, dict) or data.get("oss_lab_chat") != VERSION:
        raise LabError(f"not a chat saved with /save: `oss_lab_chat` is not {VERSION}")
    effort = require(data, "effort", str)
    if effort not in EFFORTS:
        raise LabError(f"effort is {effort!r}; use one of {', '.join(EFFORTS)}")
    outputs = require(data, "tool_outputs", dict)
    if any(not isinstance(output, str) for output in outputs.values()):
        raise LabError("tool_outputs has an output that is not text")
    opening = before = messages_from_dict(data, "opening")
    turns: list[Reply] = []
    for number, turn in enumerate(require(data, "turns", list), 1):
        try:
            turns.append(read_turn(before, turn))
        except LabError as error:
            raise LabError(f"turn {number}: {error}") from None
        before = turns[-1].conversation.messages
    # A conversation that cannot be rendered would fail at the next question.
    render(chat.lab.conversation(Conversation(before)), chat.lab.tokenizer)
    chat.start_conversation(opening, outputs)
    chat.effort = effort
    chat.turns.extend(turns)


def read_turn(before: tuple[Message, ...], turn: Any) -> Reply:
    """A reply without tokens and timing, after the messages `before` and the turn's own prompt."""
    from oss_lab.record.reply import Reply, Stop, Timing

    stop: Any = require(turn, "stop", str)
    if stop not in get_args(Stop):
        raise LabError(f"stop is {stop!r}; use one of {', '.join(get_args(Stop))}")
    unfinished = turn.get("unfinished")  # missing in the files of older versions
    if not isinstance(unfinished, bool | None):
        raise LabError("`unfinished` must be true or false")
    prompt = Conversation((*before, *messages_from_dict(turn, "prompt")))
    reply = messages_from_dict(turn, "reply")
    timing = Timing(0, 0, 0)
    return Reply(prompt, (), (), "", reply, stop, (), timing, unfinished=unfinished)


def messages_to_dict(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    return [
        message_to_dict(message) | ({"ids": list(part.ids)} if part.ids else {})
        for message in messages
        for part in [find_generated(message)]
    ]


def find_generated(message: Message) -> TextContent:
    """The text of a message that has only one; an empty one for any other message."""
    part = message.content[0] if len(message.content) == 1 else None
    return part if isinstance(part, TextContent) else TextContent("")


def messages_from_dict(data: Any, key: str) -> tuple[Message, ...]:
    """The messages in a field, with their ids."""
    items = require(data, key, list)
    plain = [without_ids(item) if isinstance(item, dict) else item for item in items]
    messages = conversation_from_dict({"messages": plain}).messages
    return tuple(map(with_ids, messages, items))


def without_ids(item: dict[str, Any]) -> dict[str, Any]:
    """A message as in Harmony's own format."""
    return {name: value for name, value in item.items() if name != "ids"}


def with_ids(message: Message, item: dict[str, Any]) -> Message:
    """The message with its ids; rendering checks that they decode to the text."""
    ids = item.get("ids")
    if ids is None:
        return message
    if not isinstance(ids, list) or any(type(id) is not int or id < 0 for id in ids):
        raise LabError("`ids` must be a list of token ids")
    part = find_generated(message)
    if message.content != (part,):
        raise LabError("`ids` applies to a message with a single text")
    return replace(message, content=(replace(part, ids=tuple(ids)),))


def require(data: Any, key: str, kind: type[T]) -> T:
    """The field `key`, which must have this type."""
    value = data.get(key) if isinstance(data, dict) else None
    if not isinstance(value, kind):
        names = {str: "text", list: "a list", dict: "an object"}
        raise LabError(f"`{key}` must be {names[kind]}")
    return value

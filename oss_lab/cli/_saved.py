"""`/save` and `/load`: a conversation as a JSON file.

Messages are in the format of `oss-lab harmony render`, with one more field: `ids`, the tokens that
the model wrote, so a loaded conversation is rendered as it was. The `reply` of a turn also has the
outputs of its calls. How long a call took, and what the agent noted about it, is not saved.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from oss_lab.agents import Budget, CallRecord, Round, Run
from oss_lab.agents.calls import find_open_calls
from oss_lab.agents.rounds import list_own_messages
from oss_lab.cli._json import prefix_errors, read_json
from oss_lab.cli._saved_messages import messages_from_dict, messages_to_dict, require
from oss_lab.errors import LabError
from oss_lab.harmony import render
from oss_lab.harmony.messages import EFFORTS, Conversation, Message
from oss_lab.record.reply import Reply, Stop, Timing

if TYPE_CHECKING:
    from oss_lab.cli._session import Chat
    from oss_lab.lab import Lab
    from oss_lab.server.remote import Connection

VERSION = 1


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
    for run in chat.turns:
        messages, last = run.conversation.messages, run.rounds[-1].reply if run.rounds else None
        own = list_own_messages(last)
        turns.append(
            {
                "prompt": messages_to_dict(run.prompt.messages[done:]),
                "reply": messages_to_dict(messages[len(run.prompt) :]),
                "stop": last.stop if last else "call",
                # a call that was cut is not among the messages
                "unfinished": last is not None and last.is_cut and own[-1:] == last.messages[-1:],
            }
        )
        done = len(messages)
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
    turns: list[Run] = []
    for number, turn in enumerate(require(data, "turns", list), 1):
        try:
            turns.append(read_turn(before, turn))
        except LabError as error:
            raise LabError(f"turn {number}: {error}") from None
        before = turns[-1].conversation.messages
    # A conversation that cannot be rendered would fail at the next question.
    check_conversation(chat.model, Conversation(before))
    chat.start_conversation(opening, outputs)
    chat.effort = effort
    chat.turns.extend(turns)


def check_conversation(model: Lab | Connection, conversation: Conversation) -> None:
    """Raise LabError if the model cannot be given this conversation."""
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is not None:
        render(conversation, tokenizer)
    else:  # another engine renders it
        from oss_lab.server.remote.messages import to_api

        to_api(conversation)


def read_turn(before: tuple[Message, ...], turn: Any) -> Run:
    """A run without tokens and timing, after the messages `before` and the turn's own prompt."""
    stop: Any = require(turn, "stop", str)
    if stop not in get_args(Stop):
        raise LabError(f"stop is {stop!r}; use one of {', '.join(get_args(Stop))}")
    unfinished = turn.get("unfinished")  # missing in the files of older versions
    if not isinstance(unfinished, bool | None):
        raise LabError("`unfinished` must be true or false")
    prompt = Conversation((*before, *messages_from_dict(turn, "prompt")))
    rounds = build_rounds(prompt, messages_from_dict(turn, "reply"))
    if rounds and (last := rounds[-1].reply):
        reply = replace(last, stop=stop, unfinished=unfinished)
        rounds[-1] = replace(rounds[-1], reply=reply)
    return Run(prompt, tuple(rounds), "closed", None, Budget(), 0.0)


def build_rounds(prompt: Conversation, messages: tuple[Message, ...]) -> list[Round]:
    """The rounds of a run from what it added to its prompt: replies, and outputs of their calls.

    Raises:
        LabError: an output does not belong to the next call.
    """
    rounds: list[Round] = []
    for is_output, group in groupby(messages, key=lambda message: message.role == "tool"):
        found = tuple(group)
        if is_output:
            calls = find_open_calls(prompt.messages)
            names = [message.author.name for message in found]
            if names != [call.name for call in calls[: len(names)]]:
                raise LabError(f"the outputs of {', '.join(map(str, names))} have no call before")
            records = map(lambda call, message: CallRecord(call, "ok", message.text), calls, found)
            rounds.append(Round(rounds.pop().reply if rounds else None, tuple(records)))
        else:
            reply = Reply(prompt, (), (), "", found, "call", (), Timing(0, 0, 0), unfinished=False)
            rounds.append(Round(reply))
        prompt = Conversation((*prompt, *found))
    return rounds

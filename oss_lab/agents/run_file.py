"""A run as a JSON object, and its file.

    format, version     "oss_lab.run", 1
    messages            every message once, in openai-harmony's format, with the ids of its tokens
    prompt              indices of the messages before the first reply
    rounds              [{reply, calls}]; `reply` is null if the prompt already had the calls
    stopped, detail, budget, seconds, dropped_reasoning

A reply has `prompt` and `messages` as indices, `prompt_tokens`, and its tokens as columns: `ids`,
`logprobs` (null if unknown), `alternatives`, `forced`. Recorded activations are not included; save
`reply.trace` itself. A reader ignores keys that it does not know.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oss_lab.agents.budget import Budget
from oss_lab.agents.calls import CallRecord
from oss_lab.agents.rounds import Round
from oss_lab.checkpoint.atomic import check_output_file, write_text
from oss_lab.errors import LabError, explain_error
from oss_lab.harmony.messages import Conversation
from oss_lab.record.reply import ToolCall
from oss_lab.record.reply_json import (
    MessageTable,
    message_from_json,
    message_to_json,
    reply_from_dict,
    reply_to_dict,
)

if TYPE_CHECKING:
    from oss_lab.agents.run import Run

FORMAT = "oss_lab.run"
VERSION = 1
UNREADABLE = (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError)
"""The exceptions raised by a file with missing keys or wrong types."""


def write_run(data: dict[str, Any], path: str | Path) -> None:
    """Write a run to a file; another run is replaced, any other file is refused."""
    file = Path(path)
    check_output_file(file, "path")
    if file.exists() and file.stat().st_size and not _is_run(file):
        raise LabError(f"{file} exists and is not a run; choose another path")
    write_text(file, json.dumps(data, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(file: Path) -> Any:
    """The value in a JSON file.

    Raises:
        LabError: it cannot be read.
    """
    try:
        return json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise LabError(f"{file} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise LabError(f"{file} is not a JSON file") from None


def _is_run(file: Path) -> bool:
    try:
        fields_from_dict(read_json(file), str(file))
    except LabError:
        return False
    return True


def run_to_dict(run: "Run") -> dict[str, Any]:
    """A run as JSON values; `run_from_dict` of run.py is the inverse."""
    table = MessageTable()
    prompt = table.add(run.prompt.messages)
    rounds = [
        {
            "reply": None if each.reply is None else reply_to_dict(each.reply, table),
            "calls": [asdict(call) for call in each.calls],
        }
        for each in run.rounds
    ]
    return {
        "format": FORMAT,
        "version": VERSION,
        "messages": [message_to_json(message) for message in table.messages],
        "prompt": prompt,
        "rounds": rounds,
        "stopped": run.stopped,
        "detail": run.detail,
        "budget": asdict(run.budget),
        "seconds": run.seconds,
        "dropped_reasoning": run.dropped_reasoning,
    }


def fields_from_dict(data: Any, where: str) -> dict[str, Any]:
    """The fields of the run in a JSON object.

    Raises:
        LabError: it is not a run, or a newer version of the format wrote it.
    """
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise LabError(f"{where} is not a run: expected an object whose format is {FORMAT!r}")
    if data.get("version") != VERSION:
        raise LabError(
            f"{where} has version {data.get('version')!r} of the format; this version of oss_lab"
            f" reads {VERSION}"
        )
    try:
        table = MessageTable([message_from_json(each) for each in data["messages"]])
        rounds = tuple(
            Round(
                None if each["reply"] is None else reply_from_dict(each["reply"], table),
                tuple(_call_from_dict(call) for call in each["calls"]),
            )
            for each in data["rounds"]
        )
        others = ("stopped", "detail", "seconds", "dropped_reasoning")
        return {
            "prompt": Conversation(table.take(data["prompt"])),
            "rounds": rounds,
            "budget": Budget(**data["budget"]),
            **{name: data[name] for name in others},
        }
    except LabError:
        raise
    except UNREADABLE as error:
        raise LabError(f"{where} is not a valid run: {explain_error(error, 120)}") from None


def _call_from_dict(data: dict[str, Any]) -> CallRecord:
    fields = {**data, "call": ToolCall(**data["call"]), "notes": tuple(data["notes"])}
    return CallRecord(**fields)

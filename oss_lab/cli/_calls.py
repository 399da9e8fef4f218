"""What a chat says about calls: the one that waits for its output, and all of a turn for /calls."""

from collections.abc import Sequence
from itertools import pairwise

from oss_lab.agents import CallRecord, Run
from oss_lab.cli._call_lines import STYLE, format_seconds
from oss_lab.cli._transcript import Transcript
from oss_lab.errors import shorten
from oss_lab.harmony.messages import Message
from oss_lab.record.reply import ToolCall

TYPED = "you typed this output"
LONGEST = 1000  # characters of arguments in a note


def list_calls(turns: Sequence[Run]) -> list[CallRecord]:
    """The calls since the last question, in order, with those that the user answers."""
    found: list[CallRecord] = []
    for before, run in pairwise([None, *turns]):
        assert run is not None
        if before is None or run.prompt.messages[-1].role != "tool":
            found = []
        else:
            typed = run.prompt.messages[len(before.conversation) :]
            found += (
                CallRecord(call, "ok", message.text, (TYPED,))
                for call, message in zip(before.open_calls, typed, strict=False)
            )
        found += (record for record in run.calls if record.output is not None)
    waiting = turns[-1].open_calls if turns else ()
    return [*found, *(CallRecord(call, "not run") for call in waiting)]


def show_calls(transcript: Transcript, records: Sequence[CallRecord]) -> None:
    """Show calls with their arguments, output, notes and time."""
    for number, record in enumerate(records, 1):
        parts = [f"call {number} of {len(records)}: {record.call.name}", record.status]
        parts += [format_seconds(record.seconds)] if record.seconds else []
        transcript.show_section(", ".join(parts), record.call.arguments, STYLE)
        if record.output is not None:
            transcript.show_section("output", record.output, "")
        for note in record.notes:
            transcript.write_note(note)
        if record.cut:
            transcript.write_note(f"{record.cut:,} more characters were cut")


def describe_open_call(messages: Sequence[Message], calls: Sequence[ToolCall]) -> str:
    """The first of the open calls at the end of a conversation, without a period.

    /calls shows long arguments in full.
    """
    arguments = shorten(" ".join(calls[0].arguments.split()), LONGEST)
    answered = next(n for n, message in enumerate(reversed(messages)) if message.role != "tool")
    count = answered + len(calls)
    place = f"call {answered + 1} of {count}: " if count > 1 else ""
    return f"{place}the model calls {calls[0].name} with {arguments}"


def has_ended_python(run: Run) -> bool:
    """Whether Ctrl-C came while Python code ran, which ends its process."""
    return any(
        record.status == "interrupted" and record.call.name.endswith("python")
        for record in run.calls
    )

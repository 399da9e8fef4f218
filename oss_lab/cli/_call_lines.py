"""Shows the calls that are run, each folded to one line: name, arguments, result and time.

    functions.calculator({"expression":"347*62"}) -> 21514   2 ms

The arguments appear as the model writes them. After a call that went wrong comes the diagnosis.
`_calls.py` shows calls in full.
"""

from collections.abc import Callable

from oss_lab.agents import CallEnded, CallRecord, CallStarted, Event, ReplyDelta
from oss_lab.cli._tools import FROM_EXAMPLE
from oss_lab.cli._transcript import STYLES, Transcript
from oss_lab.cli._visible import escape_controls
from oss_lab.errors import shorten
from oss_lab.harmony import Delta, End, Start

QUIET = ("sandbox: ", FROM_EXAMPLE)  # notes that every call has
ARROW = " -> "
LEAST = 16  # characters of arguments and of a result, also in a narrow terminal
STYLE = STYLES["commentary"]


class CallLines:
    """Writes the events of a run. `is_run` says whether calls to a tool are folded."""

    def __init__(self, transcript: Transcript, is_run: Callable[[str], bool]) -> None:
        self.transcript, self.is_run = transcript, is_run
        self._name: str | None = None  # of the call that the model is writing
        self._arguments = ""
        self._line = ""  # the call that the current line shows

    def show(self, event: Event) -> None:
        """Show one event."""
        match event:
            case ReplyDelta(_, Start(_, _, str(name))) if self.is_run(name):
                self._leave_line()
                self._name, self._arguments = name, ""
            case ReplyDelta(_, Delta(text)) if self._name is not None:
                self._arguments += text
                shown = flatten(self._arguments)[: self._find_room(self._name) - 1]
                self._extend_line(f"{self._name}({shown}")
            case ReplyDelta(_, End(message)) if self._name is not None:
                self._extend_line(self._fold(self._name, message.text))
                self._name = None
            case ReplyDelta(_, inner):
                self._leave_line()
                self.transcript.show_event(inner)
            case CallStarted(_, _, call):
                self._extend_line(self._fold(call.name, call.arguments))
                self.transcript.write_text(ARROW, "dim")
            case CallEnded(_, _, record):
                self._end_line(record)
            case _:
                pass

    def _fold(self, name: str, arguments: str) -> str:
        return f"{name}({shorten(flatten(arguments), self._find_room(name))})"

    def _find_room(self, name: str) -> int:
        """Characters for the arguments: three fifths of what the line has for them and a result."""
        return max(LEAST, (self.transcript.width - len(name) - 16) * 3 // 5)

    def _extend_line(self, text: str) -> None:
        """Write what the current line lacks of `text`; on a new line if it shows another call."""
        if not self._line or not text.startswith(self._line):
            self._leave_line()
            self.transcript.end_line()
        self.transcript.write_text(text[len(self._line) :], STYLE)
        self._line = text

    def _leave_line(self) -> None:
        if self._line:
            self.transcript.end_line()
        self._line = ""

    def _end_line(self, record: CallRecord) -> None:
        """The result and the time, then what was wrong."""
        write, note = self.transcript.write_text, self.transcript.write_note
        time, is_ok = format_seconds(record.seconds), record.status == "ok"
        room = self.transcript.width - len(self._line) - len(ARROW) - len(time) - 3
        result = shorten(flatten(record.output or ""), max(LEAST, room))
        write(result if is_ok else record.status, "" if is_ok else "red")
        write(f"   {time}", "dim")
        self._leave_line()
        if not is_ok:
            note((record.output or "").removeprefix("error: "))
        for each in record.notes:
            if not each.startswith(QUIET):
                note(each)
        if record.cut:
            note(f"the output has {record.cut:,} more characters, which the model does not get")


def flatten(text: str) -> str:
    """The text in one line, with what a terminal would obey or hide spelled out."""
    return escape_controls(" ".join(text.split()))


def format_seconds(seconds: float) -> str:
    """A duration for people.

    >>> format_seconds(0.0021), format_seconds(2.5), format_seconds(0.0001)
    ('2 ms', '2.5 s', '<1 ms')
    """
    if seconds < 0.0005:
        return "<1 ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"

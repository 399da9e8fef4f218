"""Shows a reply as it streams: each message below a label, each channel in its color.

The label always repeats what the color says. If the output is not a terminal, only plain text is
written. Control and invisible characters in a text are escaped and never reach the terminal: ESC is
shown as `\\x1b`. On a terminal, remarks are wrapped between words; the text of a model is not.
"""

from typing import TextIO

from rich.text import Text

from oss_lab.cli._pipe import make_console
from oss_lab.cli._visible import escape_controls
from oss_lab.harmony import Delta, Diagnostic, End, Event, Message, Start
from oss_lab.harmony.sections import content_text

STYLES = {"analysis": "cyan", "commentary": "magenta", "final": "green"}
FILE_WIDTH = 100
OTHER_STYLE = "yellow"  # no channel, or one that is not in Harmony


class Transcript:
    """Writes events and messages to a text stream, in color if it is a terminal."""

    def __init__(self, file: TextIO) -> None:
        self._console = make_console(file=file, force_terminal=file.isatty(), force_jupyter=False)
        self._last = "\n"  # the last character written

    @property
    def width(self) -> int:
        """Columns of the terminal, or of a line in a file."""
        return self._console.width if self._console.is_terminal else FILE_WIDTH

    def show_event(self, event: Event) -> None:
        """Show one event of a stream."""
        match event:
            case Start(author, channel, recipient):
                self._label(author.role, author.name, channel, recipient)
            case Delta(text, channel):
                self.write_text(text, STYLES.get(channel or "", OTHER_STYLE))
            case End():
                self.end_line()
            case Diagnostic(kind, _, message):
                self.write_note(f"{kind}: {message}")

    def show_message(self, message: Message, remark: str = "") -> None:
        """Show a complete message; a developer message is shown as the model reads it."""
        author = message.author
        text = "".join(content_text(part, message.role, False) for part in message.content)
        self._label(author.role, author.name, message.channel, message.recipient, remark)
        self.write_text(text, STYLES.get(message.channel or "", ""))
        self.end_line()

    def show_section(self, label: str, text: str, style: str) -> None:
        """Show a text below a label."""
        self._write_line(f"[{label}]", f"bold {style}")
        self.write_text(text, style)
        self.end_line()

    def write_note(self, text: str) -> None:
        """Write a remark that is not part of the conversation on a separate line."""
        note = escape_controls(f"({text})", self._console.encoding)
        if self._console.is_terminal:
            lines = Text(note).wrap(self._console, self._console.width, tab_size=8)
            note = "\n".join(line.plain.rstrip() for line in lines)
        self._write_line(note, "dim")

    def write_text(self, text: str, style: str = "") -> None:
        """Write text without a label; the line stays open."""
        if text:
            shown = escape_controls(text, self._console.encoding, self._last)
            self._console.out(shown, style=style or None, highlight=False, end="")
            self._last = text[-1]

    def end_line(self) -> None:
        """End the current line if it is not empty."""
        if self._last != "\n":
            self._console.out("")
        self._last = "\n"

    def _label(
        self,
        role: str,
        name: str | None,
        channel: str | None,
        recipient: str | None,
        remark: str = "",
    ) -> None:
        speaker = role if name is None else f"{role}:{name}"
        label = channel or "no channel" if speaker == "assistant" else speaker
        if recipient:
            label += f" to {recipient}"
        style = STYLES.get(channel or "", OTHER_STYLE)
        self._write_line(f"[{label}]{remark}", f"bold {style}")

    def _write_line(self, text: str, style: str) -> None:
        self.end_line()
        self.write_text(text, style)
        self.end_line()

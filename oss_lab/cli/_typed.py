"""Reads what a user types: at a prompt with a history, or from a pipe.

A line that begins with a slash is a command, and so are `exit` and `quit`. Text between two
`\"\"\"` may have several lines. To send a text that would be a command, put it between `\"\"\"`,
or double its slash: `//etc` sends `/etc`.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_path
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from oss_lab.cli._transcript import Transcript
from oss_lab.cli._visible import escape_controls

QUOTE = '"""'
EXIT_WORDS = ("exit", "quit")  # without a slash too, as in other shells
CONTINUED = "... "
Reader = Callable[[str], str]
"""Shows a prompt and returns the next line; raises EOFError at the end of the input."""


@dataclass(frozen=True)
class ChatInput:
    """What a user typed: a text, or a command with its argument.

    Attributes:
        command: `/save` and so on; None for a text.
        is_quoted: whether the text was between `\"\"\"`; only such a text can be meant to be empty.
    """

    text: str
    command: str | None = None
    is_quoted: bool = False


def read_typed(
    transcript: Transcript, prompt: Callable[[], str], commands: Iterable[str]
) -> Iterator[ChatInput]:
    """Yield each text or command. Lines from a pipe are echoed, without a prompt."""
    if sys.stdin is None:  # closed, as after `<&-`
        return
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    read = (
        make_terminal_reader(transcript, commands) if is_terminal else make_pipe_reader(transcript)
    )
    while True:
        try:
            line = read(prompt())
            yield parse_line(line) if QUOTE not in line else read_quoted(line, read)
        except KeyboardInterrupt:  # at the prompt, Ctrl-C clears the line, as in a shell
            continue
        except EOFError as error:
            if str(error):
                transcript.write_note(str(error))
            return


def parse_line(line: str) -> ChatInput:
    """A text or a command in a single line.

    >>> parse_line("/save  a.json "), parse_line("//etc").text
    (ChatInput(text='a.json', command='/save', is_quoted=False), '/etc')
    """
    line = line.strip()
    if line.lower() in EXIT_WORDS:
        return ChatInput("", "/quit")
    if line.startswith("/") and not line.startswith("//"):
        command, _, argument = line.partition(" ")
        return ChatInput(argument.strip(), command)
    return ChatInput(line.removeprefix("/"))


def read_quoted(line: str, read: Reader) -> ChatInput:
    """Read more lines up to the closing quotes; a line with quotes elsewhere is ordinary text."""
    head, _, rest = line.partition(QUOTE)
    head = head.strip()
    if head and not head.startswith("/"):
        return parse_line(line)
    while QUOTE not in rest:
        try:
            rest += "\n" + read(CONTINUED)
        except EOFError:
            raise EOFError(f"the text was not sent: its closing {QUOTE} is missing") from None
    text, _, after = rest.partition(QUOTE)
    return ChatInput((text + after).strip("\n"), head or None, is_quoted=True)


def make_pipe_reader(transcript: Transcript) -> Reader:
    """Read from a pipe or file, and echo each line."""

    def read(prompt: str) -> str:
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        line = line.rstrip("\n") if prompt == CONTINUED else line.strip()
        transcript.write_text(f"{prompt if prompt == CONTINUED else '> '}{line}\n")
        return line

    return read


def make_terminal_reader(transcript: Transcript, commands: Iterable[str]) -> Reader:
    """Read at a prompt, with the history of earlier chats and completed commands."""
    completer = WordCompleter(list(commands), sentence=True)
    session: PromptSession[str] = PromptSession(
        history=open_history(transcript), completer=completer
    )
    return lambda prompt: session.prompt(escape_controls(prompt))


def open_history(transcript: Transcript) -> History:
    """The lines of earlier chats, from the user's data folder."""
    file = Path(user_data_path("oss-lab", appauthor=False)) / "chat_history"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
    except OSError as error:
        transcript.write_note(f"the input history cannot be saved: {file}: {error.strerror}")
        return InMemoryHistory()
    return FileHistory(str(file))

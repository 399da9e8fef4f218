"""Reads the lines that a user types: at a prompt with a history, or from a pipe."""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from platformdirs import user_data_path
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from oss_lab.cli._transcript import Transcript, escape_controls


def read_lines(
    transcript: Transcript, prompt: Callable[[], str], commands: Iterable[str]
) -> Iterator[str]:
    """Yield each line, stripped. Lines from a pipe are echoed, without a prompt."""
    if sys.stdin is None:  # closed, as after `<&-`
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        for line in sys.stdin:
            transcript.write_text(f"> {line.strip()}\n")
            yield line.strip()
        return
    completer = WordCompleter(list(commands), sentence=True)
    session = PromptSession(history=open_history(transcript), completer=completer)
    while True:
        try:
            line = session.prompt(lambda: escape_controls(prompt())).strip()
        except KeyboardInterrupt:  # at the prompt, Ctrl-C clears the line, as in a shell
            continue
        except EOFError:
            return
        yield line


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

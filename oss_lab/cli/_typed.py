"""Lines that a person types: at a prompt with a history, or plainly from a pipe."""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from platformdirs import user_data_path
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from oss_lab.cli._transcript import Transcript, visible


def typed_lines(
    transcript: Transcript, prompt: Callable[[], str], commands: Iterable[str]
) -> Iterator[str]:
    """Each line, stripped; ends with the input. From a pipe lines are echoed, without a prompt."""
    if sys.stdin is None:  # so Python calls a closed one, as after `<&-`
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        for line in sys.stdin:
            transcript.text(f"> {line.strip()}\n")
            yield line.strip()
        return
    completer = WordCompleter(list(commands), sentence=True)
    session = PromptSession(history=saved_history(transcript), completer=completer)
    while True:
        try:
            line = session.prompt(lambda: visible(prompt())).strip()
        except KeyboardInterrupt:  # at the prompt it clears the line, as in a shell
            continue
        except EOFError:
            return
        yield line


def saved_history(transcript: Transcript) -> History:
    """The lines typed in earlier chats, from the user's own data folder."""
    file = Path(user_data_path("oss-lab", appauthor=False)) / "chat_history"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
    except OSError as error:
        transcript.note(f"what you type is not kept: {file}: {error.strerror}")
        return InMemoryHistory()
    return FileHistory(str(file))

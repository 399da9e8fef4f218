"""What a program does if the reader of its output has gone, as in `oss-lab eval nano | head -1`."""

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

STATUS = 141  # as of a program that SIGPIPE ended


def make_console(**options: Any) -> "Console":
    """A console that raises BrokenPipeError if its reader has gone; rich would exit with 1."""
    from rich.console import Console

    class PipeConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return PipeConsole(**options)


def run_program(main: Callable[[], int]) -> int:
    """Run `main` and return its exit status, or STATUS if its output was closed."""
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()  # detects a closed pipe here and not at shutdown
    except BrokenPipeError:
        return discard_output()


def discard_output() -> int:
    """Discard what is still buffered, so it cannot fail at shutdown; return the status."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # from Python's documentation
    return STATUS

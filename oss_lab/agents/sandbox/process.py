"""A started worker process, from the outside: its pipes, and how to stop, continue and end it."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any


class CannotStart(Exception):
    """A sandbox did not start here; the message is the reason, as part of a sentence."""


class Process:
    """One worker and the three pipes to it.

    Attributes:
        requests, answers, raw: descriptors for its stdin, stdout and stderr. `requests` is closed
            by `close`, the other two by the threads that read them.
        folder: the path of the data folder as the worker sees it.
        proc: /proc/PID, if the kernel shows one, to count threads and deleted files.
        ended: how it ended, once `gone` is set.
    """

    def __init__(
        self,
        pipes: tuple[IO[bytes] | None, ...],
        folder: str,
        wait: Callable[[], str],
        *,
        pid: int | None = None,
        kill: Callable[[], None] | None = None,
    ) -> None:
        self.requests, self.answers, self.raw = map(take_descriptor, pipes)
        self.folder, self.wait, self._kill = folder, wait, kill
        self.proc = None if pid is None else Path(f"/proc/{pid}")
        # A handle names this process, also after its number was given to another one.
        self._handle = None if pid is None else os.pidfd_open(pid)
        self.ended, self.gone = "", threading.Event()

    def pause(self) -> None:
        """Stop all its threads between calls: no code runs while nobody waits for it."""
        self.signal("SIGSTOP")

    def resume(self) -> None:
        self.signal("SIGCONT")

    def signal(self, name: str) -> None:
        if self._handle is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, getattr(signal, name))

    def kill(self) -> None:
        """End it at once. Nothing that the code does can delay this."""
        self.signal("SIGKILL")
        if self._kill is not None and self._handle is None:
            self._kill()

    def close(self) -> str:
        """End it, release what belongs to it, and say how it ended."""
        self.kill()
        # What started it collects it. Only if nothing did, that is ended as well.
        if self._kill is not None and not self.gone.wait(2):
            self._kill()
        self.gone.wait(5)
        for descriptor in (self.requests, self._handle):
            if descriptor is not None:
                os.close(descriptor)
        self.requests, self._handle = None, None
        return self.ended


def take_descriptor(pipe: IO[bytes] | None) -> int | None:
    """A descriptor of our own for a pipe, whose file object is closed."""
    assert pipe is not None
    with pipe:
        return os.dup(pipe.fileno())


def start_in_own_thread(start: Callable[[], Process]) -> Process:
    """Start a process from a thread that lives as long as it does.

    The kernel ends these processes with the thread that started them: none outlives a
    notebook that was killed. A caller's thread may end much earlier, as those of a server do.
    """
    outcome: list[Any] = []
    known = threading.Event()

    def keep() -> None:
        try:
            outcome.append(start())
        except BaseException as error:  # the caller raises it
            outcome.append(error)
            return
        finally:
            known.set()
        process = outcome[0]
        try:
            process.ended = process.wait()
        finally:
            process.gone.set()

    threading.Thread(target=keep, name="sandbox", daemon=True).start()
    known.wait()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def wait_for(popen: "subprocess.Popen[bytes]") -> Callable[[], str]:
    """How a Popen waits for its end and describes it."""

    def wait() -> str:
        code = popen.wait()
        # `bwrap` reports a signal as shells do.
        return describe_exit(128 - code if 128 < code < 192 else code)

    return wait


def describe_exit(code: int) -> str:
    """How a process ended, from its return code as `subprocess` counts.

    >>> describe_exit(3), describe_exit(-11)
    ('it exited with code 3', 'signal SIGSEGV ended it')
    """
    if code >= 0:
        return f"it exited with code {code}"
    try:
        return f"signal {signal.Signals(-code).name} ended it"
    except ValueError:
        return f"signal {-code} ended it"

"""The Python tool: a notebook in a sandbox, for code that a model writes."""

import os
import threading
import weakref
from dataclasses import replace
from types import TracebackType

from oss_lab.agents.sandbox.choose import choose
from oss_lab.agents.sandbox.data_folder import DataFolder
from oss_lab.agents.sandbox.limits import Limits
from oss_lab.agents.sandbox.process import CannotStart
from oss_lab.agents.sandbox.result import Result
from oss_lab.agents.sandbox.worker import Worker
from oss_lab.errors import LabError


class PythonSandbox:
    """A stateful Python process that runs a model's code, as the built-in `python` tool promises.

    Variables and imports last from call to call, the last expression of a call is shown, and files
    in /mnt/data are kept until `close`. A process that is killed is started again by the next call.
    The process cannot start others, has no network, and reads only Python and its packages.

    Attributes:
        sandbox: what confines the code: "sandlock", "bubblewrap" or "unsafe: none".
        limits: what the process may use.
    """

    def __init__(
        self, *, limits: Limits | None = None, use: str | None = None, unsafe: bool = False
    ) -> None:
        """Start the process.

        Args:
            use: the sandbox to use, by its name in `sandbox`; None takes the first that works.
            unsafe: run without a sandbox where none works. The code can then do what you can.

        Raises LabError if no sandbox works here and `unsafe` is not given.
        """
        self.limits = limits or Limits()
        self._state = State()
        self._lock = threading.Lock()
        self._finalizer = weakref.finalize(self, self._state.close)
        try:
            self._choice, self._state.worker = choose(
                self._state.data, self.limits, use, unsafe=unsafe
            )
        except BaseException:
            self._finalizer()
            raise

    @property
    def sandbox(self) -> str:
        return self._choice.name

    def run(self, code: str, seconds: float | None = None) -> Result:
        """Run code and wait for its end. Its errors are text in the result.

        Args:
            seconds: a shorter limit than `limits.seconds`, for this call.
        """
        if not isinstance(code, str):
            raise LabError(f"expected Python code as text, got {type(code).__name__}")
        most = self.limits.seconds
        seconds = most if seconds is None else replace(self.limits, seconds=seconds).seconds
        with self._lock:
            if not self._finalizer.alive:
                raise LabError("this Python sandbox is closed; create another one")
            worker = self._state.worker or self._restart()
            self._state.worker = worker
            try:
                result = worker.run(code, min(seconds, most))
            except BaseException:  # an interrupt, which ends the process
                self._state.worker = None
                raise
            if result.ended is not None:
                self._state.worker = None
            return result

    def cancel(self) -> None:
        """End the running call from another thread. Its result says so; variables are gone."""
        worker = self._state.worker
        if worker is not None and self._lock.locked():
            worker.cancel()

    def _restart(self) -> Worker:
        """A new process in the same sandbox: a restart never falls back to a weaker one."""
        try:
            return self._choice.start_worker(self._state.data, self.limits)
        except CannotStart as error:
            raise LabError(
                f"the Python process does not start again in {self.sandbox} ({error}); create "
                "another sandbox, with larger limits if these are small"
            ) from error

    def files(self) -> dict[str, int]:
        """Sizes in bytes of the regular files in /mnt/data, by relative path."""
        return self._state.data.files()

    def read_file(self, name: str) -> bytes:
        """The content of a file in /mnt/data. Links that the code made are not followed."""
        return self._state.data.read(name)

    def write_file(self, name: str, content: bytes) -> None:
        """Put a file into /mnt/data for the code to read. LabError if it exceeds the limits."""
        path = self._state.data.write(name, content)
        excess = self._state.data.find_excess(self.limits.disk, self.limits.files)
        if excess is not None:
            path.unlink()
            raise LabError(f"{name!r} is not kept, since {excess}; give the sandbox larger limits")

    def close(self) -> None:
        """End the process and delete /mnt/data."""
        with self._lock:
            self._finalizer()

    def __enter__(self) -> "PythonSandbox":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class State:
    """What must be cleaned up when a sandbox is closed, forgotten, or Python exits."""

    def __init__(self) -> None:
        self.data = DataFolder()
        self.worker: Worker | None = None
        self.owner = os.getpid()

    def close(self) -> None:
        if os.getpid() != self.owner:
            return  # a copy of this process exits, which does not own the worker
        if self.worker is not None:
            self.worker.close()
        self.data.remove()

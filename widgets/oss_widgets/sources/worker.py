"""One thread that does a source's work, so neither the cell nor the connection has to wait for it.

A job is a generator. The worker runs the jobs in turn, one slice each, so a long reply does not
hold up the numbers that another view requests. A canceled job gets no further slice; one that has
not begun never begins.
"""

import threading
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any


class Job:
    """A generator and the future of what it returns.

    Attributes:
        canceled: set it to end the job before its next slice. Its future then has no result.
    """

    def __init__(self, slices: Generator[None, None, Any], canceled: threading.Event) -> None:
        self.slices, self.canceled = slices, canceled
        self.done: Future[Any] = Future()

    def advance(self) -> bool:
        """Run one slice; whether there is another one."""
        if self.canceled.is_set():
            self.slices.close()
            self.done.cancel()
            return False
        try:
            next(self.slices)
        except StopIteration as end:
            self.done.set_result(end.value)
        except BaseException as error:
            self.done.set_exception(error)
        else:
            return True
        return False


class Worker:
    """A daemon thread and its jobs; the thread starts with the first one."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def submit(self, slices: Generator[None, None, Any], canceled: threading.Event) -> Job:
        """Add a job after the waiting ones; it ends early once `canceled` is set."""
        job = Job(slices, canceled)
        with self._wake:
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="oss_widgets", daemon=True)
                self._thread.start()
            self._wake.notify()
        return job

    def close(self) -> None:
        """Cancel all jobs and end the thread."""
        with self._wake:
            self._is_closed = True
            for job in self._jobs:
                job.canceled.set()
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._jobs:
                    if self._is_closed:
                        return
                    self._wake.wait()
                job = self._jobs.popleft()
            if job.advance():
                with self._wake:
                    self._jobs.append(job)
                    if self._is_closed:
                        job.canceled.set()

"""One thread that does a source's work, so neither the cell nor the connection has to wait for it.

A job is a generator. The worker runs the jobs in turn, one slice each, so a long reply does not
hold up the numbers that another view requests. A canceled job gets no further slice; one that has
not begun never begins.
"""

import atexit
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any

from oss_lab.errors import LabError


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
        try:
            if not self.canceled.is_set():
                next(self.slices)
                return True
            self.slices.close()  # its cleanup may fail
            self.done.cancel()
        except StopIteration as end:
            self.done.set_result(end.value)
        except BaseException as error:
            self.done.set_exception(error)
        return False


class Worker:
    """A daemon thread and its jobs; the thread starts with the first one.

    When Python exits, it waits for the slice that is running: a thread that is ended inside torch
    would abort the process. `at_end` is called as the last thing in the thread.
    """

    def __init__(self, at_end: Callable[[], None] = lambda: None) -> None:
        self._at_end = at_end
        self._jobs: deque[Job] = deque()
        self._running: Job | None = None
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def submit(self, slices: Generator[None, None, Any], canceled: threading.Event) -> Job:
        """Add a job after the waiting ones; it ends early once `canceled` is set.

        Raises:
            LabError: the worker is closed.
        """
        job = Job(slices, canceled)
        with self._wake:
            if self._is_closed:
                raise LabError("this view is closed; make a new one")
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="oss_widgets", daemon=True)
                self._thread.start()
                atexit.register(self._end)
            self._wake.notify()
        return job

    def close(self) -> None:
        """Cancel all jobs and end the thread."""
        with self._wake:
            self._is_closed = True
            for job in [*self._jobs, *([self._running] if self._running else [])]:
                job.canceled.set()
            self._wake.notify()
        atexit.unregister(self._end)

    def _end(self) -> None:
        self.close()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while (job := self._take_job()) is not None:
            is_open = job.advance()
            with self._wake:
                self._running = None
                if is_open:
                    self._jobs.append(job)
        self._at_end()

    def _take_job(self) -> Job | None:
        """Wait for a job; None once the worker is closed and has none."""
        with self._wake:
            while not self._jobs:
                if self._is_closed:
                    return None
                self._wake.wait()
            self._running = self._jobs.popleft()
            return self._running

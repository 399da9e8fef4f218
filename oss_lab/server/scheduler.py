"""The thread that runs the model: it owns a `Batch`, in which rows join and leave between steps.

Clients submit jobs and get their events, those of several tokens at a time. The queue is bounded.
An error in one row ends that row only: a step without it is repeated, since an interrupted step
leaves a batch unchanged.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence

from oss_lab.engine.row import BatchRow, RowError
from oss_lab.lab import Lab
from oss_lab.lab.generation import feed, force_next
from oss_lab.record.token import Token
from oss_lab.server.delivery import Delivery
from oss_lab.server.errors import ApiError
from oss_lab.server.job import Job, Update
from oss_lab.server.settings import Limits

TOGETHER = 1 / 8  # of the rows are free before prompts join them, while more prompts wait
PATIENCE = 0.2  # seconds after which they join anyway; one step of a large model takes longer
log = logging.getLogger("oss_lab.server")


class Scheduler:
    """Runs the jobs of all clients on one model, in one thread.

    Attributes:
        tokens: number of tokens generated so far, and `prompt_tokens` of tokens read.
        steps: number of forward passes that generated them.
    """

    def __init__(self, lab: Lab, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self.limits = limits
        self.tokens = self.prompt_tokens = self.steps = 0
        self._chosen = lab.choose_engine([])
        self._batch = lab.new_batch(self._chosen)
        self._batch.watch = iter  # no progress bar in a server's terminal
        self._jobs: dict[BatchRow, Job] = {}
        self._waiting: deque[Job] = deque()
        self._joining = 0  # jobs whose prompts are being read
        self._changed = threading.Condition()
        self._is_closing = False
        self._admitted = 0.0
        self._delivery = Delivery(loop)
        self._thread = threading.Thread(target=self._run, name="oss-lab model", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Number of replies that are being generated."""
        return len(self._jobs) + self._joining

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Add jobs to the queue: all, or none.

        Raises:
            ApiError: the queue is full (429), or the server is ending.
        """
        with self._changed:
            if self._is_closing:
                raise ApiError(503, "the server is shutting down", code="server_shutting_down")
            free = max(0, self.limits.rows - self.running)
            if len(self._waiting) + len(jobs) > self.limits.waiting + free:
                raise ApiError(
                    429,
                    f"the server is busy: {self.running} replies are being generated and"
                    f" {len(self._waiting)} wait; try again later",
                    code="queue_full",
                )
            self._waiting.extend(jobs)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """End a job before the next step; it keeps what was generated."""
        job.is_cancelled = True

    def close(self) -> None:
        """End all jobs and the thread."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._jobs or self._is_closing):
                    self._changed.wait()
                if self._is_closing:
                    break
            self._end_unwanted()
            self._admit()
            self._step()
            self._delivery.send()
        for job in (*self._jobs.values(), *self._waiting):
            job.is_cancelled = True
        self._end_unwanted()
        self._delivery.send()

    def _end_unwanted(self) -> None:
        """End the jobs that were cancelled or have used up their time."""
        now = time.monotonic()
        with self._changed:
            left = [job for job in self._waiting if job.is_cancelled or job.deadline < now]
            for job in left:
                self._waiting.remove(job)
        for job in (*left, *self._jobs.values()):
            if job.is_cancelled or job.deadline < now:
                job.ended_by = "cancelled" if job.is_cancelled else "time"
                self._finish(job)

    def _admit(self) -> None:
        """Let waiting jobs join, as far as there are free rows.

        If more wait, the first rows that are free wait for others, since nano reads four prompts
        together in half the time that it takes for one after the other.
        """
        now = time.monotonic()
        with self._changed:
            free = max(0, self.limits.rows - len(self._jobs))
            enough = min(len(self._waiting), int(TOGETHER * self.limits.rows))
            if free < enough and now - self._admitted < PATIENCE:
                return
            joining = [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]
            self._joining = len(joining)
        if joining:
            self._admitted = now
        # Prompts that join together are padded to the longest, so only similar ones do.
        classes: dict[int, list[Job]] = {}
        for job in joining:
            classes.setdefault(len(job.request.tokens).bit_length(), []).append(job)
        for jobs in classes.values():
            self._join(jobs)

    def _join(self, jobs: Sequence[Job]) -> None:
        """Read the prompts of some jobs together; one that fails does not end the others."""
        for job in jobs:
            job.builder.start_clock()
        try:
            rows = self._batch.add([job.request for job in jobs])
        except Exception as error:
            if jobs[1:]:
                for job in jobs:
                    self._join([job])
            else:
                self._joining -= 1
                self._fail(jobs[0], error)
            return
        self._joining -= len(jobs)
        for job, row in zip(jobs, rows, strict=True):
            self.prompt_tokens += len(job.request.tokens)
            self._jobs[row], job.row = job, row
            job.steering.begin(row)
            force_next(row, job.builder)

    def _step(self) -> None:
        """Generate one token for every row."""
        if not self._jobs:
            return
        try:
            found = self._batch.step()
        except RowError as error:
            # A constraint comes from the request; without one, the model is at fault.
            is_asked = error.row.request.constraint is not None
            self._fail(self._jobs[error.row], ApiError(400, str(error)) if is_asked else error)
        except Exception as error:
            # Nothing says which row caused it. The newest is the likeliest, so the others continue.
            self._fail(self._jobs[next(reversed(self._jobs))], error)
        else:
            self.tokens += len(found)
            self.steps += 1
            for row, token in found:
                self._take(self._jobs[row], row, token)

    def _take(self, job: Job, row: BatchRow, token: Token) -> None:
        """Give a token to the builder of its reply."""
        try:
            events = feed(self._batch, row, job.builder, token)
            job.steering.follow(row, events)
        except Exception as error:
            self._fail(job, error)
            return
        self._delivery.add(job, events)
        if row.is_done or job.builder.is_stopped or job.steering.has_enough:
            job.ended_by = "model"
            self._finish(job)

    def _finish(self, job: Job) -> None:
        self._leave(job)
        try:
            events, reply = job.builder.finish()
            if job.row is not None:
                reply = job.generation.complete(reply, job.row, self._chosen)
        except Exception as error:
            self._fail(job, error)
        else:
            self._delivery.end(job, Update(events, reply))

    def _fail(self, job: Job, error: Exception) -> None:
        if not isinstance(error, ApiError):
            log.error("a reply failed", exc_info=error)
        self._leave(job)
        self._delivery.end(job, Update((), error=error))

    def _leave(self, job: Job) -> None:
        if job.row is not None:
            self._batch.remove(job.row)
            self._jobs.pop(job.row, None)

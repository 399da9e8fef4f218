"""Brings the events of replies from the scheduler's thread to their readers in the event loop."""

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Sequence

from oss_lab.harmony import Event
from oss_lab.server.job import Job, Update

INTERVAL = 0.05  # seconds between deliveries of tokens; below it nobody sees a difference
LONGEST_WAIT = 0.01  # seconds that the model waits for the event loop to send them


class Delivery:
    """What is new of each job, until it is sent."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._events: dict[Job, list[Event]] = defaultdict(list)
        self._ends: dict[Job, Update] = {}
        self._sent_at = 0.0

    def add(self, job: Job, events: Sequence[Event]) -> None:
        """Keep the events of a token for the next delivery."""
        if events:
            self._events[job] += events

    def end(self, job: Job, update: Update) -> None:
        """Keep the last update of a job."""
        self._ends[job] = update

    def send(self) -> None:
        """Give new updates to their readers, and wait until the event loop has sent them.

        Not after every step: the event loop takes as long to send one token as several. A reply
        that has ended is delivered at once. While both threads run, each takes Python's lock from
        the other all the time, which costs more than the wait.
        """
        now = time.monotonic()
        jobs = list(self._ends)
        if now - self._sent_at >= INTERVAL:
            jobs, self._sent_at = [*{*jobs, *self._events}], now
        if not jobs:
            return
        updates = [(job, self._take_updates(job)) for job in jobs]
        sent = threading.Event()

        def deliver() -> None:
            for job, found in updates:
                job.receive(found)
            self._loop.call_soon(self._loop.call_soon, sent.set)  # after the readers

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(deliver)
            sent.wait(LONGEST_WAIT)

    def _take_updates(self, job: Job) -> list[Update]:
        """What is new of a job: the events of its tokens, and its end."""
        events, end = self._events.pop(job, []), self._ends.pop(job, None)
        updates = [Update(events)] if events else []
        return updates if end is None else [*updates, end]

"""One reply that is generated for a client: its request, and the events on their way to it.

The event loop receives updates from the scheduler. A client that reads slowly finds several at
once.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal

from oss_lab.engine.row import BatchRow
from oss_lab.harmony import Event
from oss_lab.harmony.prompt import Question
from oss_lab.lab.generation import Generation
from oss_lab.record.reply import Reply
from oss_lab.server.errors import ApiError
from oss_lab.server.steering import Steering

End = Literal["model", "cancelled", "time"]


@dataclass(frozen=True)
class Update:
    """Events of one or more tokens; the last update has the reply, or the error that ended it."""

    events: Sequence[Event]
    reply: Reply | None = None
    error: Exception | None = None


class Job:
    """A reply that is generated, or waits to be.

    Args:
        inbox: set when there are updates; jobs that are read together share it.
        draw: the number of its random stream under the seed.
        seconds: until it is ended, waiting included.

    Attributes:
        ended_by: why it ended; None while it has not.
        is_cancelled: set by `Scheduler.cancel`.

    Raises:
        LabError: the request cannot be served.
        ApiError: the prompt is longer than the context.
    """

    def __init__(
        self,
        generation: Generation,
        question: Question,
        inbox: asyncio.Event,
        *,
        draw: int = 0,
        steering: Steering | None = None,
        seconds: float,
    ) -> None:
        self.generation, self.steering = generation, steering or Steering()
        self.builder = generation.build_chat(question)
        check_length(len(self.builder.prompt_tokens), generation.lab.config.max_context_length)
        self.request = generation.build_request(self.builder, draw)
        self.deadline = time.monotonic() + seconds
        self.row: BatchRow | None = None
        self.ended_by: End | None = None
        self.is_cancelled = False
        self._updates: list[Update] = []
        self._inbox = inbox

    def receive(self, updates: Sequence[Update]) -> None:
        """Wake the reader. Called by the event loop, like all that follows."""
        self._updates += updates
        self._inbox.set()

    def take_updates(self) -> list[Update]:
        """The updates since the last call.

        Raises:
            Exception: generation failed.
        """
        found, self._updates = self._updates, []
        if found and found[-1].error is not None:
            raise found[-1].error
        return found


async def read_updates(
    jobs: Sequence[Job], inbox: asyncio.Event
) -> AsyncIterator[tuple[int, list[Update]]]:
    """Yield (index of the job, its new updates), until every job has its reply."""
    open_jobs = dict(enumerate(jobs))
    while open_jobs:
        await inbox.wait()
        inbox.clear()
        for index, job in list(open_jobs.items()):
            if found := job.take_updates():
                if found[-1].reply is not None:
                    del open_jobs[index]
                yield index, found


def check_length(tokens: int, context: int) -> None:
    """Raise ApiError if a prompt leaves no room for an answer."""
    if tokens >= context:
        raise ApiError(
            400,
            f"the prompt has {tokens} tokens, and the context of this model is {context}; shorten"
            " the prompt",
            code="context_length_exceeded",
        )

"""What every endpoint needs: the model, the scheduler, the settings and the stored responses."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from oss_lab.errors import LabError
from oss_lab.lab import Lab
from oss_lab.server.errors import ApiError
from oss_lab.server.job import Job
from oss_lab.server.scheduler import Scheduler
from oss_lab.server.settings import Settings
from oss_lab.server.store import Store

if TYPE_CHECKING:
    from oss_lab.server.responses.endpoint import Writer


@dataclass
class Context:
    """One running server.

    Attributes:
        running: the responses that are being generated, by id.
    """

    lab: Lab
    settings: Settings
    scheduler: Scheduler
    store: Store
    running: "dict[str, Writer]" = field(default_factory=dict)

    def check_model(self, name: str) -> None:
        """Raise ApiError (404) if the server has another model."""
        if name != self.settings.model:
            raise ApiError(
                404,
                f"The model '{name[:100]}' does not exist; this server has '{self.settings.model}'",
                code="model_not_found",
                param="model",
            )

    async def start(self, build: Callable[[], Sequence[Job]]) -> Sequence[Job]:
        """Build jobs in another thread, since a long prompt takes time, and submit them.

        Raises:
            ApiError: the request cannot be served, or the queue is full.
        """
        try:
            jobs = await asyncio.to_thread(build)
        except LabError as error:
            raise ApiError(400, str(error), code="invalid_value") from None
        self.scheduler.submit(jobs)
        return jobs

    def end(self, jobs: Sequence[Job]) -> None:
        """Cancel the jobs that have not ended: their client is gone."""
        for job in jobs:
            if job.ended_by is None:
                self.scheduler.cancel(job)

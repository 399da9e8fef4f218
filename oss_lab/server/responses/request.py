"""The body of a response, and the job that serves it."""

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from oss_lab.errors import LabError
from oss_lab.lab.generation import Generation
from oss_lab.server.context import Context
from oss_lab.server.errors import ApiError
from oss_lab.server.formats import read_format
from oss_lab.server.job import Job
from oss_lab.server.request import Body, Count, Objects, limit_tokens, read_effort
from oss_lab.server.responses.items import ItemReader, read_input
from oss_lab.server.steering import Steering, require_call
from oss_lab.server.store import Record
from oss_lab.server.tool_choice import plan_tools

INCLUDED = "message.output_text.logprobs"


class Fields(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class StreamOptions(Fields):
    """Has no effect: nothing is added to the events."""

    include_obfuscation: bool | None = None


class Reasoning(Fields):
    """How much to think. There are no summaries: the whole reasoning is sent."""

    effort: str | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class Text(Fields):
    format: dict[str, Any] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ResponseBody(Body):
    """The fields of a response that have an effect."""

    input: str | Objects
    instructions: str | None = None
    previous_response_id: str | None = None
    max_output_tokens: Count | None = None
    include: list[str] | None = None
    text: Text | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["auto", "disabled"] | None = None
    stream_options: StreamOptions | None = None

    @property
    def has_logprobs(self) -> bool:
        return bool(self.top_logprobs) or INCLUDED in (self.include or ())

    @property
    def is_stored(self) -> bool:
        return self.store is not False


class Asked:
    """A request with what it continues: its items, and the job once it is built.

    Raises:
        ApiError: the previous response is not stored.
    """

    def __init__(self, context: Context, body: ResponseBody, inbox: asyncio.Event) -> None:
        self.context, self.body, self.inbox = context, body, inbox
        self.notes: list[str] = []
        self.items = read_input(body.input)

    def build_jobs(self) -> Sequence[Job]:
        """The job that generates the response.

        Raises:
            LabError: an option cannot be used.
            ApiError: a field cannot be used, or a response is not stored.
        """
        body, lab, limits = self.body, self.context.lab, self.context.settings.limits
        self.notes += body.check_others()
        if body.truncation == "auto":
            self.notes.append("truncation auto is treated as disabled")
        if body.text and body.text.verbosity:
            self.notes.append("text.verbosity is ignored")
        reader = ItemReader(self.context.store.find_items, self.context.settings.images, self.notes)
        for record in self._find_previous():
            reader.read([*record.input, *record.output], f"items of {record.id}")
        reader.read(self.items, "input")
        plan = plan_tools(body.tools, body.tool_choice, self.notes)
        options: Any = {
            "effort": read_effort(body.reasoning and body.reasoning.effort, self.notes),
            "instructions": body.instructions,
            "tools": plan.tools,
            "max_tokens": limit_tokens(body.max_output_tokens, limits.tokens, self.notes),
            "alternatives": body.top_logprobs or 0,
            "well_formed": bool(plan.required),
            **body.sampling(),
            **read_format(body.text and body.text.format, "text.format"),
        }
        generation = Generation(lab, options)
        steering = require_call(lab.tokenizer, plan.required) if plan.required else Steering()
        steering.is_single |= body.parallel_tool_calls is False
        seconds = limits.seconds
        try:
            job = Job(generation, reader.messages, self.inbox, steering=steering, seconds=seconds)
        except LabError as error:
            raise reader.explain(error) from None
        return [job]

    def _find_previous(self) -> list[Record]:
        previous = self.body.previous_response_id
        if previous is None:
            return []
        chain = self.context.store.find_chain(previous)
        if isinstance(chain, str):
            raise ApiError(
                404,
                f"Previous response with id '{chain[:100]}' not found.",
                code="previous_response_not_found",
                param="previous_response_id",
            )
        return chain

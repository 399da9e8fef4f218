"""The body of a chat completion, and the jobs that serve it, one per choice."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from oss_lab.lab.generation import Generation
from oss_lab.server.context import Context
from oss_lab.server.errors import ApiError
from oss_lab.server.formats import read_format
from oss_lab.server.images import replace_images
from oss_lab.server.job import Job
from oss_lab.server.request import AskedEffort, Body, Count, Objects, limit_tokens, read_effort
from oss_lab.server.steering import Steering, require_call
from oss_lab.server.tool_choice import plan_tools


class StreamOptions(BaseModel):
    """`include_obfuscation` has no effect: nothing is added to the events."""

    model_config = ConfigDict(strict=True, extra="forbid")

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Reasoning(BaseModel):
    """Another way to give the effort. There are no summaries: the whole reasoning is sent."""

    model_config = ConfigDict(strict=True, extra="forbid")

    effort: AskedEffort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None


class ChatBody(Body):
    """The fields of a chat completion that have an effect."""

    messages: Annotated[Objects, Field(min_length=1)]
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    logprobs: bool | None = None
    reasoning_effort: AskedEffort | None = None
    reasoning: Reasoning | None = None
    response_format: dict[str, Any] | None = None

    @property
    def stops(self) -> list[str]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in given if text]

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


def build_jobs(
    context: Context, body: ChatBody, inbox: asyncio.Event, notes: list[str]
) -> Sequence[Job]:
    """One job per choice. Adds to `notes` what is ignored or replaced.

    Raises:
        LabError: the messages or options cannot be used.
        ApiError: a field cannot be used.
    """
    lab, limits = context.lab, context.settings.limits
    notes += body.check_others()
    count = body.n or 1
    if count > limits.choices:
        raise ApiError(400, f"n is {count}; this server allows {limits.choices}", param="n")
    if body.top_logprobs and not body.logprobs:
        raise ApiError(
            400, "top_logprobs needs `logprobs: true`", code="invalid_value", param="top_logprobs"
        )
    effort = body.reasoning_effort or (body.reasoning.effort if body.reasoning else None)
    plan = plan_tools(body.tools, body.tool_choice, notes)
    asked = body.max_completion_tokens or body.max_tokens
    options: Any = {
        "effort": read_effort(effort, notes),
        "tools": plan.tools,
        "max_tokens": limit_tokens(asked, limits.tokens, notes),
        "stop": body.stops,
        "alternatives": body.top_logprobs or 0,
        "well_formed": bool(plan.required),
        **body.sampling(),
        **read_format(body.response_format, "response_format"),
    }
    if body.seed is not None:
        options["seed"] = body.seed % 2**63  # the API allows negative ones
    messages = [replace_images(each, context.settings.images, notes) for each in body.messages]
    generation = Generation(lab, options)

    def build(draw: int) -> Job:
        steering = require_call(lab.tokenizer, plan.required) if plan.required else Steering()
        steering.is_single |= body.parallel_tool_calls is False
        return Job(
            generation, messages, inbox, draw=draw, steering=steering, seconds=limits.seconds
        )

    return [build(draw) for draw in range(count)]

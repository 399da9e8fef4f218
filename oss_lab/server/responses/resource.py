"""The response object, which repeats the settings of its request."""

import time
from collections.abc import Sequence
from typing import Any

from oss_lab.lab import Lab
from oss_lab.record.reply import Reply
from oss_lab.server.job import Job
from oss_lab.server.responses.request import ResponseBody

TOOL_FIELDS = ("name", "description", "parameters", "strict")


def new_response(id: str, body: ResponseBody, lab: Lab) -> dict[str, Any]:
    """The response before anything is generated."""
    extra = body.model_extra or {}
    reasoning, text = body.reasoning, body.text
    form = (text and text.format) or {"type": "text"}
    if form.get("type") == "json_schema":
        form = {"description": None, "strict": False, **form}
    temperature, top_p = lab.sampling.temperature, lab.sampling.top_p
    return {
        "id": id,
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "model": body.model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": extra.get("prompt_cache_key"),
        "reasoning": {
            "effort": reasoning and reasoning.effort,
            "summary": reasoning and (reasoning.summary or reasoning.generate_summary),
        },
        "safety_identifier": extra.get("safety_identifier"),
        "service_tier": "default",
        "store": body.is_stored,
        "temperature": temperature if body.temperature is None else body.temperature,
        "text": {
            "format": form,
            **({"verbosity": text.verbosity} if text and text.verbosity else {}),
        },
        "tool_choice": body.tool_choice or "auto",
        "tools": [describe_tool(tool) for tool in body.tools or ()],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": top_p if body.top_p is None else body.top_p,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "truncation": body.truncation or "disabled",
        "usage": None,
        "metadata": body.metadata or {},
    }


def describe_tool(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool with all its fields."""
    return {"type": "function", **{name: tool.get(name) for name in TOOL_FIELDS}}


def finish_response(
    response: dict[str, Any],
    output: Sequence[dict[str, Any]],
    job: Job,
    reply: Reply,
    reasoning_tokens: int,
) -> dict[str, Any]:
    """The response with its output, status and usage."""
    prompt, written = len(reply.prompt_tokens), len(reply.tokens)
    reason = find_reason(job, reply)
    status = "cancelled" if job.ended_by == "cancelled" else "incomplete"
    return {
        **response,
        "completed_at": int(time.time()) if reason is None else None,
        "status": "completed" if reason is None else status,
        "incomplete_details": None if reason is None else {"reason": reason},
        "output": list(output),
        "usage": {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": written,
            "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
            "total_tokens": prompt + written,
        },
    }


def find_reason(job: Job, reply: Reply) -> str | None:
    """Why the reply is incomplete; None if it is complete."""
    if job.ended_by == "cancelled":
        return "cancelled"
    if job.ended_by == "time":
        return "max_time"
    is_cut = reply.stop == "length" and not job.steering.has_enough
    return "max_output_tokens" if is_cut else None

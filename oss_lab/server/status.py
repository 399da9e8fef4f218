"""/health, /metrics (as Prometheus reads them) and /v1/models."""

import time
from collections import Counter
from typing import Any

from starlette.responses import PlainTextResponse

from oss_lab.server.context import Context

STARTED = int(time.time())


def show_health() -> dict[str, str]:
    """Whether the server answers; needs no token."""
    return {"status": "ok"}


def describe_model(context: Context) -> dict[str, Any]:
    config = context.lab.config
    return {
        "id": context.settings.model,
        "object": "model",
        "created": STARTED,
        "owned_by": "oss-lab",
        "max_context_length": config.max_context_length,
    }


def list_models(context: Context) -> dict[str, Any]:
    """The one model of this server."""
    return {"object": "list", "data": [describe_model(context)]}


def show_model(context: Context, name: str) -> dict[str, Any]:
    """The model of this server, if this is its id."""
    context.check_model(name)
    return describe_model(context)


def show_metrics(context: Context, answers: Counter[int]) -> PlainTextResponse:
    """Counters and gauges of this server."""
    scheduler = context.scheduler
    lines = [
        *metric("replies_running", "gauge", "Replies being generated.", scheduler.running),
        *metric("replies_waiting", "gauge", "Replies waiting for a free row.", scheduler.waiting),
        *metric("generated_tokens_total", "counter", "Tokens generated.", scheduler.tokens),
        *metric("steps_total", "counter", "Steps that generated them.", scheduler.steps),
        *metric("prompt_tokens_total", "counter", "Tokens read.", scheduler.prompt_tokens),
        "# HELP oss_lab_answers_total Answers by HTTP status.",
        "# TYPE oss_lab_answers_total counter",
        *(
            f'oss_lab_answers_total{{status="{status}"}} {count}'
            for status, count in sorted(answers.items())
        ),
    ]
    return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


def metric(name: str, kind: str, help: str, value: float) -> list[str]:
    full = f"oss_lab_{name}"
    return [f"# HELP {full} {help}", f"# TYPE {full} {kind}", f"{full} {value}"]

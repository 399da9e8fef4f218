"""What happens in a run, as it happens: frozen values that can be written as JSON.

The order is ReplyStarted, ReplyDelta ..., ReplyEnded, then CallStarted and CallEnded for each call
of the reply, and so on until Stopped. Replies are numbered from 0.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from oss_lab.agents.calls import CallRecord
from oss_lab.harmony.events import Event as HarmonyEvent
from oss_lab.harmony.events import event_to_dict as harmony_event_to_dict
from oss_lab.record.reply import Reply, ToolCall

StopReason = Literal[
    "answer", "calls", "tokens", "seconds", "length", "no answer", "failed", "interrupted", "closed"
]
"""`answer`: the model answered. `calls`, `tokens`, `seconds`: the budget is used up. `length`: a
reply reached its own max_tokens or the end of the context. `no answer`: the reply has neither an
answer nor a call. `failed`: the model or its prompt failed. `interrupted`: Ctrl-C. `closed`: the
reader of the events stopped."""


@dataclass(frozen=True)
class ReplyStarted:
    """The model begins a reply to this many messages."""

    reply: int
    messages: int


@dataclass(frozen=True)
class ReplyDelta:
    """A Harmony event of a reply: a header, text, the end of a message, or a diagnostic."""

    reply: int
    event: HarmonyEvent


@dataclass(frozen=True)
class ReplyEnded:
    """The complete reply, or what there is of it."""

    reply: int
    value: Reply


@dataclass(frozen=True)
class CallStarted:
    """A call is about to run; `index` is its place in the reply."""

    reply: int
    index: int
    call: ToolCall


@dataclass(frozen=True)
class CallEnded:
    """The outcome of a call."""

    reply: int
    index: int
    record: CallRecord


@dataclass(frozen=True)
class Stopped:
    """The run has ended; `detail` explains the reason in one sentence, or is None."""

    reason: StopReason
    detail: str | None = None


Event = ReplyStarted | ReplyDelta | ReplyEnded | CallStarted | CallEnded | Stopped


def event_to_dict(event: Event) -> dict[str, Any]:
    """An event as a JSON object with its type under `event`; a reply as its ids and channels."""
    match event:
        case ReplyStarted(reply, messages):
            return {"event": "reply_started", "reply": reply, "messages": messages}
        case ReplyDelta(reply, inner):
            return {"event": "reply_delta", "reply": reply, "delta": harmony_event_to_dict(inner)}
        case ReplyEnded(reply, value):
            return {
                "event": "reply_ended",
                "reply": reply,
                "ids": list(value.ids),
                "analysis": value.analysis,
                "commentary": value.commentary,
                "final": value.final,
                "calls": [asdict(call) for call in value.tool_calls],
                "stop": value.stop,
                "diagnostics": [asdict(each) for each in value.diagnostics],
            }
        case CallStarted(reply, index, call):
            return {"event": "call_started", "reply": reply, "index": index, "call": asdict(call)}
        case CallEnded(reply, index, record):
            return {"event": "call_ended", "reply": reply, "index": index, **asdict(record)}
        case Stopped(reason, detail):
            return {"event": "stopped", "reason": reason, "detail": detail}

"""Runs that no model continues: the tokens of a trace, or texts that the caller gave."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from oss_lab.hooks.interventions import Intervention
from oss_lab.record.reply import ToolCall
from oss_lab.record.token import Token
from oss_lab.record.token_labels import TokenLabel
from oss_lab.record.trace import Trace
from oss_widgets.sources.exchange import is_call_message
from oss_widgets.sources.tools import describe_call

CONTENT_STARTS = ("<|channel|>", "<|message|>")


class StoredRun:
    """Tokens with labels; nothing about it changes."""

    request: Mapping[str, Any] | None = None
    interventions: tuple[Intervention, ...] = ()
    parent: tuple[str, int] | None = None
    stop: str | None = "return"
    open_calls: tuple[ToolCall, ...] = ()
    note: str | None = None
    seconds = 0.0

    def __init__(
        self, ids: Sequence[int], labels: Sequence[TokenLabel], generated: Sequence[Token | None]
    ) -> None:
        self.id = "run-1"
        self.ids, self.labels, self.generated = list(ids), list(labels), list(generated)

    @property
    def prompt_length(self) -> int:
        """Where the last turn of the assistant begins; everything if there is none."""
        others = [n for n, each in enumerate(self.labels) if each.role not in ("assistant", None)]
        begin = max(others, default=-1) + 1
        places = range(begin, len(self.labels))
        return next((n for n in places if self.labels[n].text in CONTENT_STARTS), len(self.labels))

    @property
    def answer(self) -> str:
        return "\n".join(
            each["text"] for each in self.list_messages() if each["channel"] == "final"
        )

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The calls of the last turn; a trace does not have their outputs."""
        calls = filter(is_call_message, self.list_messages())
        return [describe_call(each["recipient"], each["text"], None) for each in calls]

    def list_messages(self) -> list[dict[str, Any]]:
        """The messages of the last turn as plain data."""
        found = []
        for number, part in groupby(self.labels[self.prompt_length :], lambda label: label.message):
            labels = list(part)
            text = "".join(label.text for label in labels if label.part == "content")
            if number >= 0:
                names = {name: getattr(labels[0], name) for name in ("role", "channel")}
                recipient = labels[0].recipient
                found.append({**names, "recipient": recipient, "text": text, "isOpen": False})
        return found

    def list_diagnostics(self) -> list[dict[str, Any]]:
        return []


def read_trace_run(trace: Trace) -> StoredRun:
    """The tokens of a trace; with the likeliest ones at each position, if it recorded them."""
    generated: list[Token | None] = [None] * len(trace.tokens)
    if {"out.top_ids", "out.top_logprobs"} <= set(trace.selection.points):
        ids = trace.tensor("out.top_ids").tolist()
        logprobs = trace.tensor("out.top_logprobs").float().tolist()
        for position, row, values in zip(trace.positions, ids, logprobs, strict=True):
            if position + 1 < len(trace.tokens):
                token = trace.tokens[position + 1]
                best = tuple(zip(row, values, strict=True))
                generated[position + 1] = Token(
                    token, dict(best).get(token, float("nan")), best[:5]
                )
    return StoredRun(trace.tokens, trace.labels, generated)


def read_text_run(texts: Sequence[str]) -> StoredRun:
    """Texts as tokens of one message; their ids are their places."""
    labels = [TokenLabel(text, 0, None, None, None, "content") for text in texts]
    return StoredRun(range(len(texts)), labels, [None] * len(texts))

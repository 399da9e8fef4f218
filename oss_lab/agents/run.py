"""`Run`: one question and everything that followed, as plain data.

A run has each reply with its tokens, each call with its output, and why it ended. It is written to
JSON and read back without a model (`run_file.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from oss_lab.agents.budget import Budget
from oss_lab.agents.calls import CallRecord, find_open_calls
from oss_lab.agents.events import CallEnded, Event, ReplyEnded, Stopped, StopReason
from oss_lab.agents.rounds import Round, list_output_messages, list_own_messages
from oss_lab.agents.run_file import fields_from_dict, read_json, run_to_dict, write_run
from oss_lab.errors import shorten
from oss_lab.harmony.messages import Conversation, Message
from oss_lab.record.reply import Reply, ToolCall


@dataclass(frozen=True, repr=False)
class Run:
    """One turn of a model with tools.

    Attributes:
        prompt: the messages before the first reply, with the declared tools.
        rounds: the replies and their calls, in order.
        stopped: why it ended; see `StopReason`.
        detail: one sentence about it, or None.
        budget: what it could use.
        seconds: wall time.
        dropped_reasoning: whether the model was not shown its reasoning again between calls.
    """

    prompt: Conversation
    rounds: tuple[Round, ...]
    stopped: StopReason
    detail: str | None
    budget: Budget
    seconds: float
    dropped_reasoning: bool = False

    @property
    def replies(self) -> tuple[Reply, ...]:
        return tuple(each.reply for each in self.rounds if each.reply is not None)

    @property
    def calls(self) -> tuple[CallRecord, ...]:
        """All calls in order, also those that were not run."""
        return tuple(call for each in self.rounds for call in each.calls)

    @property
    def final(self) -> str | None:
        """The answer of the last reply, "" if it has none; None before the first reply."""
        return self.replies[-1].final if self.replies else None

    @property
    def tokens(self) -> int:
        """Generated tokens in all replies."""
        return sum(len(reply.tokens) for reply in self.replies)

    @property
    def conversation(self) -> Conversation:
        """The prompt, the replies and the outputs of the calls, to continue from."""
        messages = [*self.prompt.messages]
        for each in self.rounds:
            messages += list_own_messages(each.reply)
            messages += list_output_messages(each.calls)
        return Conversation(tuple(messages))

    @property
    def open_calls(self) -> tuple[ToolCall, ...]:
        """The calls that have no output. `agent.run(run.conversation)` runs them first."""
        return find_open_calls(self.conversation.messages)

    @property
    def events(self) -> Iterator[Event]:
        """The steps of the run again: each complete reply and call, and the end."""
        number = 0
        for each in self.rounds:
            if each.reply is not None:
                yield ReplyEnded(number, each.reply)
            for index, call in enumerate(each.calls):
                yield CallEnded(number, index, call)
            number += each.reply is not None
        yield Stopped(self.stopped, self.detail)

    def follow_up(self, question: str) -> Conversation:
        """The conversation with another question, for the next run."""
        return Conversation((*self.conversation.messages, Message.of("user", question)))

    def save(self, path: str | Path) -> None:
        """Write the run to a JSON file; `read_run` reads it."""
        write_run(run_to_dict(self), path)

    def __repr__(self) -> str:
        answer = f" {shorten(self.final, 60)!r}" if self.final else ""
        return (
            f"<Run{answer}, {len(self.replies)} replies, {len(self.calls)} calls,"
            f" {self.tokens} tokens, stopped: {self.stopped}>"
        )

    def _repr_html_(self) -> str:
        """The run as escaped HTML: reasoning and calls folded, the answer open."""
        parts: list[str] = []
        for each in self.rounds:
            if each.reply is not None and each.reply.analysis:
                parts.append(_fold("analysis", each.reply.analysis))
            parts += (_fold_call(call) for call in each.calls)
        note = f"{len(self.replies)} replies, {self.tokens} tokens, stopped: {self.stopped}"
        note += f" ({self.detail})" if self.detail else ""
        answer = f"<pre>{escape(self.final or '')}</pre>"
        return f"<div>{''.join(parts)}{answer}<small>{escape(note)}</small></div>"


def run_from_dict(data: Any, where: str = "this value") -> Run:
    """The run of a JSON object that `run_to_dict` returned.

    Raises:
        LabError: it is not a run, or a newer version of the format wrote it.
    """
    return Run(**fields_from_dict(data, where))


def read_run(path: str | Path) -> Run:
    """Read a file that `Run.save` wrote; no model is needed.

    Raises:
        LabError: it cannot be read, or is not a run.
    """
    return run_from_dict(read_json(Path(path)), str(path))


def _fold_call(record: CallRecord) -> str:
    call = record.call
    title = f"{call.name}({shorten(call.arguments, 80)}) → {record.status}, {record.seconds:.3f} s"
    lines = [call.arguments, record.output or "(no output)", *(f"note: {n}" for n in record.notes)]
    return _fold(title, "\n".join(lines))


def _fold(title: str, text: str) -> str:
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"

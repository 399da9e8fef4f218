"""A run while it happens: its rounds, its budget, and why it ended."""

import time
from dataclasses import replace

from oss_lab.agents.budget import Budget
from oss_lab.agents.calls import CallRecord
from oss_lab.agents.events import Stopped, StopReason
from oss_lab.agents.rounds import Round, list_own_messages
from oss_lab.agents.run import Run
from oss_lab.harmony.messages import Conversation, Message
from oss_lab.record.reply import Reply, ToolCall

Reason = tuple[StopReason, str | None]


class RunSoFar:
    """What happened, and what the budget still allows.

    Attributes:
        messages: the prompt and everything after it.
        stopped: why the run ended; None while it continues.
    """

    def __init__(self, prompt: Conversation, budget: Budget, *, drops_reasoning: bool) -> None:
        self.prompt, self.budget, self.drops_reasoning = prompt, budget, drops_reasoning
        self.rounds: list[Round] = []
        self.messages: list[Message] = [*prompt.messages]
        self.stopped: Stopped | None = None
        self._start: float | None = None
        self._seconds = 0.0

    def start_clock(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Wall time until the end, or until now."""
        if self.stopped is not None or self._start is None:
            return self._seconds
        return time.perf_counter() - self._start

    @property
    def run(self) -> Run:
        """The run as data; `closed` as long as it has not ended."""
        stopped = self.stopped or Stopped("closed")
        return Run(
            self.prompt,
            tuple(self.rounds),
            stopped.reason,
            stopped.detail,
            self.budget,
            self.seconds,
            self.drops_reasoning,
        )

    @property
    def replies(self) -> int:
        """The number of replies."""
        return sum(each.reply is not None for each in self.rounds)

    @property
    def tokens(self) -> int:
        """Generated tokens in all replies."""
        return sum(len(each.reply.tokens) for each in self.rounds if each.reply is not None)

    def add_reply(self, reply: Reply | None, calls: tuple[ToolCall, ...] = ()) -> None:
        """Begin a round; its calls have not been run."""
        records = tuple(CallRecord(call, "not run") for call in calls)
        self.rounds.append(Round(reply, records))
        self.messages += list_own_messages(reply)

    def set_call(self, index: int, record: CallRecord) -> None:
        """Replace a call of the last round."""
        calls = [*self.rounds[-1].calls]
        calls[index] = record
        self.rounds[-1] = replace(self.rounds[-1], calls=tuple(calls))

    def stop(self, reason: StopReason, detail: str | None = None) -> None:
        """Note why the run ended; the first reason counts."""
        if self.stopped is None:
            self._seconds = self.seconds
            self.stopped = Stopped(reason, detail)

    @property
    def is_late(self) -> bool:
        return self.budget.seconds is not None and self.seconds >= self.budget.seconds

    def find_exhausted(self, *, is_call: bool = False) -> Reason | None:
        """The budget that leaves no room for another call, or for another reply."""
        budget = self.budget
        if self.is_late:
            return "seconds", f"the budget of {budget.seconds or 0:g} seconds is used up"
        made = sum(call.status != "not run" for each in self.rounds for call in each.calls)
        if is_call and budget.calls is not None and made >= budget.calls:
            return "calls", f"the budget of {budget.calls} calls is used up"
        if budget.tokens is not None and self.tokens >= budget.tokens:
            return "tokens", f"the budget of {budget.tokens:,} tokens is used up"
        return None

"""`RunStream`: the loop itself. The model replies, its calls are run, and it continues.

The chain of thought stays in the conversation while the turn is open. The renderer's policy leaves
it out of later turns (`oss_lab.harmony.policy`). Whatever ends the run early, be it the budget, an
exception, Ctrl-C or a reader that stops, `run` keeps every token and every output up to there.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from oss_lab.agents.budget import Budget
from oss_lab.agents.calls import CallRecord, find_open_calls, run_call
from oss_lab.agents.events import (
    CallEnded,
    CallStarted,
    Event,
    ReplyDelta,
    ReplyEnded,
    ReplyStarted,
    Stopped,
    StopReason,
)
from oss_lab.agents.rounds import Round, list_output_messages, list_own_messages
from oss_lab.agents.run import Run
from oss_lab.agents.tool import Tool
from oss_lab.errors import LabError, explain_error
from oss_lab.harmony.exchanges import is_call
from oss_lab.harmony.messages import Conversation, Message
from oss_lab.harmony.policy import is_final
from oss_lab.harmony.prompt import shorten_repr
from oss_lab.lab.options import MAX_TOKENS
from oss_lab.record.builder import Stream
from oss_lab.record.reply import Reply, ToolCall

if TYPE_CHECKING:
    from oss_lab.agents.agent import Agent

Tools = Mapping[str, Tool]
Steps = Iterator[Event]


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C during `agent.run`. `run` is what happened before."""

    def __init__(self, run: Run) -> None:
        super().__init__("the run was interrupted; it is in `.run` of this exception")
        self.run = run


class RunStream:
    """The events of a run as they happen. `run` is what happened so far, at any time."""

    def __init__(
        self,
        agent: "Agent",
        prompt: Conversation,
        budget: Budget,
        open_tools: Callable[[], AbstractContextManager[Tools]],
    ) -> None:
        if not isinstance(budget, Budget):
            raise LabError(f"expected a Budget such as Budget(calls=5), got {shorten_repr(budget)}")
        self._agent, self._prompt, self._budget = agent, prompt, budget
        self._open_tools = open_tools
        self._rounds: list[Round] = []
        self._messages: list[Message] = [*prompt.messages]
        self._stopped: Stopped | None = None
        self._events: Iterator[Event] | None = None
        self._start = self._seconds = 0.0

    def __iter__(self) -> Iterator[Event]:
        if self._events is None:
            self._events = self._run()
        return self._events

    def read(self) -> Run:
        """Read the events to their end and return the run.

        Raises:
            RunInterrupted: Ctrl-C.
        """
        try:
            for _ in self:
                pass
        except KeyboardInterrupt:
            raise RunInterrupted(self.run) from None
        return self.run

    def close(self) -> Run:
        """Stop here. A reply that is being written is cut; returns the run so far."""
        close = getattr(self._events, "close", None)
        if close is not None:
            close()
        return self.run

    @property
    def run(self) -> Run:
        """What happened so far; `closed` as long as the run has not ended."""
        stopped = self._stopped or Stopped("closed")
        return Run(
            self._prompt,
            tuple(self._rounds),
            stopped.reason,
            stopped.detail,
            self._budget,
            self._seconds if self._stopped else self._elapsed(),
            self._agent.drop_reasoning,
        )

    # The loop

    def _run(self) -> Steps:
        self._start = time.perf_counter()
        try:
            with self._open_tools() as tools:
                yield from self._loop(tools)
        except GeneratorExit:
            self._stop("closed")
            raise
        except KeyboardInterrupt:
            self._stop("interrupted")
            raise
        except BaseException as error:
            self._stop("failed", explain_error(error))
            raise
        assert self._stopped is not None
        yield self._stopped

    def _loop(self, tools: Tools) -> Steps:
        calls = find_open_calls(self._messages)
        if calls:
            self._rounds.append(Round(None))
            self._note_calls(calls)
            yield from self._run_calls(tools)
        while self._stopped is None:
            if reason := self._find_exhausted():
                self._stop(*reason)
                return
            yield from self._reply()
            if self._stopped is None:
                yield from self._run_calls(tools)

    def _reply(self) -> Steps:
        """One reply of the model; it is kept as far as it was generated."""
        number = sum(each.reply is not None for each in self._rounds)
        try:
            stream = self._agent.model.stream(self._build_prompt(), **self._build_options())
            yield ReplyStarted(number, len(self._messages))
            yield from self._read(stream, number)
        except LabError as error:
            if not self._rounds:
                raise
            self._stop("failed", str(error))
            return
        reply = stream.reply
        self._note_calls(reply.open_calls)
        if reason := self._find_end(reply):
            self._stop(*reason)
        yield ReplyEnded(number, reply)

    def _read(self, stream: Stream, number: int) -> Steps:
        is_done = False
        try:
            for event in stream:
                yield ReplyDelta(number, event)
                if self._is_late():
                    break
            is_done = True
        finally:
            reply = stream.cut()
            if is_done or reply.tokens:
                self._rounds.append(Round(reply))
                self._messages += list_own_messages(reply)

    def _run_calls(self, tools: Tools) -> Steps:
        """Run the calls of the last round, in order, as far as the budget allows."""
        number = max(0, sum(each.reply is not None for each in self._rounds) - 1)
        for index, call in enumerate(each.call for each in self._rounds[-1].calls):
            if reason := self._find_exhausted(is_call=True):
                self._stop(*reason)
                break
            yield CallStarted(number, index, call)
            self._set_call(index, CallRecord(call, "interrupted"))
            start = time.perf_counter()
            try:
                record = run_call(call, tools, self._agent.longest_output)
            except BaseException:
                seconds = time.perf_counter() - start
                self._set_call(index, CallRecord(call, "interrupted", seconds=seconds))
                raise
            self._set_call(index, record)
            yield CallEnded(number, index, record)
        self._messages += list_output_messages(self._rounds[-1].calls)

    # What the model sees

    def _build_prompt(self) -> Conversation:
        """The conversation so far, with the reasoning of this turn unless it is dropped."""
        given = len(self._prompt)
        kept = (
            message
            for index, message in enumerate(self._messages)
            if index < given or not self._agent.drop_reasoning or not is_reasoning(message)
        )
        return Conversation(tuple(kept))

    def _build_options(self) -> dict[str, Any]:
        """The keywords of the next reply, with max_tokens inside the budget."""
        options = self._agent.reply_options
        if self._budget.tokens is not None:
            left = self._budget.tokens - self.run.tokens
            options["max_tokens"] = min(options.get("max_tokens", MAX_TOKENS), left)
        return options

    # When it ends

    def _find_exhausted(self, *, is_call: bool = False) -> tuple[StopReason, str] | None:
        """The budget that leaves no room for another call, or for another reply."""
        budget = self._budget
        if self._is_late():
            return "seconds", self._explain_seconds()
        made = sum(call.status != "not run" for each in self._rounds for call in each.calls)
        if is_call and budget.calls is not None and made >= budget.calls:
            return "calls", f"the budget of {budget.calls} calls is used up"
        if budget.tokens is not None and self.run.tokens >= budget.tokens:
            return "tokens", f"the budget of {budget.tokens:,} tokens is used up"
        return None

    def _find_end(self, reply: Reply) -> tuple[StopReason, str | None] | None:
        """Why the run ends with this reply; None if its calls come next."""
        if reply.stop == "length":
            exhausted = self._find_exhausted()
            limit = "the reply reached its max_tokens or the end of the context"
            return exhausted or ("length", limit)
        if reply.open_calls:
            return None
        if any(map(is_final, reply.messages)):
            return "answer", None
        problems = "; ".join(each.message for each in reply.diagnostics[:3])
        return "no answer", problems or f"the reply has neither an answer nor a call ({reply.stop})"

    def _is_late(self) -> bool:
        return self._budget.seconds is not None and self._elapsed() >= self._budget.seconds

    def _explain_seconds(self) -> str:
        return f"the budget of {self._budget.seconds or 0:g} seconds is used up"

    # What is kept

    def _stop(self, reason: StopReason, detail: str | None = None) -> None:
        """Note why the run ended; the first reason counts."""
        if self._stopped is None:
            self._stopped, self._seconds = Stopped(reason, detail), self._elapsed()

    def _elapsed(self) -> float:
        return time.perf_counter() - self._start if self._start else 0.0

    def _note_calls(self, calls: tuple[ToolCall, ...]) -> None:
        """Keep calls that have not been run yet."""
        records = tuple(CallRecord(call, "not run") for call in calls)
        self._rounds[-1] = replace(self._rounds[-1], calls=records)

    def _set_call(self, index: int, record: CallRecord) -> None:
        calls = [*self._rounds[-1].calls]
        calls[index] = record
        self._rounds[-1] = replace(self._rounds[-1], calls=tuple(calls))


def is_reasoning(message: Message) -> bool:
    """Whether this is the model's chain of thought, and not a call or an output."""
    return message.role == "assistant" and message.channel == "analysis" and not is_call(message)

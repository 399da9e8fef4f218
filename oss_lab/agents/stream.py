"""`RunStream`: the loop itself. The model replies, its calls are run, and it continues.

The chain of thought stays in the conversation while the turn is open. The renderer's policy leaves
it out of later turns (`oss_lab.harmony.policy`). Whatever ends the run early, be it the budget, an
exception, Ctrl-C or a reader that stops, `run` keeps every token and every output up to there.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager
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
)
from oss_lab.agents.rounds import list_output_messages
from oss_lab.agents.run import Run
from oss_lab.agents.run_so_far import Reason, RunSoFar
from oss_lab.agents.tool import Tool
from oss_lab.errors import LabError, explain_error
from oss_lab.harmony.exchanges import is_call
from oss_lab.harmony.messages import Conversation, Message
from oss_lab.harmony.policy import is_final
from oss_lab.harmony.prompt import shorten_repr
from oss_lab.lab.options import MAX_TOKENS
from oss_lab.record.builder import Stream
from oss_lab.record.reply import Reply

if TYPE_CHECKING:
    from oss_lab.agents.agent import Agent

Tools = Mapping[str, Tool]
Steps = Generator[Event]


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
        self._agent, self._open_tools = agent, open_tools
        self._here = RunSoFar(prompt, budget, drops_reasoning=agent.drop_reasoning)
        self._events: Steps | None = None

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
        if self._events is not None:
            self._events.close()
        return self.run

    @property
    def run(self) -> Run:
        """What happened so far; `closed` as long as the run has not ended."""
        return self._here.run

    def _run(self) -> Steps:
        here = self._here
        here.start_clock()
        try:
            with self._open_tools() as tools:
                yield from self._loop(tools)
        except GeneratorExit:
            here.stop("closed")
            raise
        except KeyboardInterrupt:
            here.stop("interrupted")
            raise
        except BaseException as error:
            here.stop("failed", explain_error(error))
            raise
        assert here.stopped is not None
        yield here.stopped

    def _loop(self, tools: Tools) -> Steps:
        here = self._here
        if calls := find_open_calls(here.messages):
            here.add_reply(None, calls)
            yield from self._run_calls(tools)
        while here.stopped is None:
            if reason := here.find_exhausted():
                here.stop(*reason)
                return
            yield from self._reply()
            if here.stopped is None:
                yield from self._run_calls(tools)

    def _reply(self) -> Steps:
        """One reply of the model; it is kept as far as it was generated."""
        here, number = self._here, self._here.replies
        try:
            stream = self._agent.model.stream(self._build_prompt(), **self._build_options())
            yield ReplyStarted(number, len(here.messages))
            yield from self._read(stream, number)
        except LabError as error:
            if not here.rounds:
                raise
            here.stop("failed", str(error))
            return
        if reason := find_end(stream.reply, here):
            here.stop(*reason)
        yield ReplyEnded(number, stream.reply)

    def _read(self, stream: Stream, number: int) -> Steps:
        is_done = False
        try:
            for event in stream:
                yield ReplyDelta(number, event)
                if self._here.is_late:
                    break
            is_done = True
        finally:
            reply = stream.cut()
            if is_done or reply.tokens:
                self._here.add_reply(reply, reply.open_calls)

    def _run_calls(self, tools: Tools) -> Steps:
        """Run the calls of the last round, in order, as far as the budget allows."""
        here, number = self._here, max(0, self._here.replies - 1)
        for index, call in enumerate(each.call for each in here.rounds[-1].calls):
            if reason := here.find_exhausted(is_call=True):
                here.stop(*reason)
                break
            yield CallStarted(number, index, call)
            here.set_call(index, CallRecord(call, "interrupted"))
            start = time.perf_counter()
            try:
                record = run_call(call, tools, self._agent.longest_output)
            except BaseException:
                seconds = time.perf_counter() - start
                here.set_call(index, CallRecord(call, "interrupted", seconds=seconds))
                raise
            here.set_call(index, record)
            yield CallEnded(number, index, record)
        here.messages += list_output_messages(here.rounds[-1].calls)

    def _build_prompt(self) -> Conversation:
        """The conversation so far, with the reasoning of this turn unless it is dropped."""
        messages, given = self._here.messages, len(self._here.prompt)
        kept = (
            message
            for index, message in enumerate(messages)
            if index < given or not self._agent.drop_reasoning or not is_reasoning(message)
        )
        return Conversation(tuple(kept))

    def _build_options(self) -> dict[str, Any]:
        """The keywords of the next reply, with max_tokens inside the budget."""
        options, here = self._agent.reply_options, self._here
        if here.budget.tokens is not None:
            left = here.budget.tokens - here.tokens
            options["max_tokens"] = min(options.get("max_tokens", MAX_TOKENS), left)
        return options


def find_end(reply: Reply, here: RunSoFar) -> Reason | None:
    """Why a run ends with this reply; None if its calls come next."""
    if reply.stop == "length":
        limit = "the reply reached its max_tokens or the end of the context"
        return here.find_exhausted() or ("length", limit)
    if reply.open_calls:
        return None
    if any(map(is_final, reply.messages)):
        return "answer", None
    problems = "; ".join(each.message for each in reply.diagnostics[:3])
    return "no answer", problems or f"the reply has neither an answer nor a call ({reply.stop})"


def is_reasoning(message: Message) -> bool:
    """Whether this is the model's chain of thought, and not a call or an output."""
    return message.role == "assistant" and message.channel == "analysis" and not is_call(message)

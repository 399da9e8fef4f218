"""A chat session: its turns, and what answers a line. Its commands are in `_commands.py`.

A turn is the run of an agent (`oss_lab.agents`) that one typed line caused, and is added once it is
complete. While calls wait that no tool answers, what the user types is the output of the next one;
otherwise it is the next question.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from oss_lab.agents import Agent, Budget, CallStarted, Run, Session
from oss_lab.cli._call_lines import CallLines
from oss_lab.cli._calls import describe_open_call, has_ended_python
from oss_lab.cli._tools import OpenTools, Outputs
from oss_lab.cli._transcript import Transcript
from oss_lab.cli._warnings import report_each
from oss_lab.errors import LabError
from oss_lab.harmony.messages import Conversation, Effort, Message
from oss_lab.record.calls import tool_message
from oss_lab.record.reply import Reply, ToolCall

if TYPE_CHECKING:
    from oss_lab.lab import Lab
    from oss_lab.nano.turn_limit import TurnLimit
    from oss_lab.server.remote import Connection


class Chat:
    """The conversation so far, and what acts on it.

    Attributes:
        model: a lab, or a connection to another engine.
        turns: the run of each line that the user typed.
        opening: the messages before the first question; an example brings its own.
        tools: the tools that are run; a budget limits the calls of each turn.
        tool_outputs: the outputs of the example's tools, by the arguments of the call.
        turn_limit: how many questions the model was measured to hold, or None.
        is_verbose: whether tokens and speed are shown after each reply.
    """

    def __init__(
        self,
        model: "Lab | Connection",
        transcript: Transcript,
        effort: Effort,
        max_tokens: int,
        *,
        instructions: str | None = None,
        tools: OpenTools | None = None,
        budget: Budget | None = None,
        turn_limit: "TurnLimit | None" = None,
    ) -> None:
        self.model, self.transcript = model, transcript
        self.effort: Effort = effort
        self.max_tokens = max_tokens
        self.tools = tools or OpenTools()
        self.budget = budget or Budget()
        self.default_opening = self.opening = self.build_opening(instructions)
        self.tool_outputs: Outputs = {}
        self.turns: list[Run] = []
        self.turn_limit = turn_limit
        self.is_verbose = self._has_warned = False
        self._warnings: set[str] = set()  # shown in this conversation

    @property
    def messages(self) -> tuple[Message, ...]:
        """All messages of the conversation."""
        return self.turns[-1].conversation.messages if self.turns else self.opening

    @property
    def open_calls(self) -> tuple[ToolCall, ...]:
        """The calls that wait for an output, in order."""
        return self.turns[-1].open_calls if self.turns else ()

    def format_prompt(self) -> str:
        """The input prompt: the name of the called tool, or the effort of the next question."""
        calls = self.open_calls
        return f"{calls[0].name if calls else self.effort}> "

    def send(self, line: str) -> None:
        """Answer a question, or continue with the output of a call."""
        calls = self.open_calls
        message = tool_message(calls[0], line) if calls else Message.of("user", line)
        self.answer(Conversation((*self.messages, message)))

    def warn_about_length(self, prompt: Conversation) -> None:
        """Say once per conversation that it has become longer than the model can hold."""
        asked = sum(message.role == "user" for message in prompt)
        if self.turn_limit and asked > self.turn_limit.turns and not self._has_warned:
            note = f"this is question {asked}; {self.turn_limit.sentence}; /reset starts a new one"
            self.transcript.write_note(note)
            self._has_warned = True

    def answer(self, prompt: Conversation) -> None:
        """Run the model and its tools until it answers, or calls what no tool answers.

        If the user stops it, the whole turn is discarded.
        """
        self.warn_about_length(prompt)
        try:
            self.turns.append(self.run(prompt))
        except KeyboardInterrupt:
            self.transcript.write_note("stopped; this turn was discarded")
        except LabError as error:
            is_local = hasattr(self.model, "tokenizer")  # where the context is usually full
            hint = "; use /undo or /reset to continue" if self.turns and is_local else ""
            self.transcript.write_note(f"{error}{hint}")
        self.note_open_call()

    def run(self, prompt: Conversation) -> Run:
        """Show a run as it happens; it ends before a call that no tool answers.

        Raises:
            LabError: the model cannot continue.
        """
        tools = self.tools.choose(self.model, prompt, self.tool_outputs)
        agent = Agent(
            self.model, budget=self.budget, effort=self.effort, max_tokens=self.max_tokens
        )
        stream = Session(agent, tools.tools).stream(prompt)
        lines = CallLines(self.transcript, tools.has)
        try:
            for event in report_each(stream, self.note_warning):
                if isinstance(event, CallStarted) and not tools.can_run(event.call):
                    break
                lines.show(event)
        except KeyboardInterrupt:
            if has_ended_python(stream.run):
                self.transcript.write_note("the Python process was ended, with its variables")
            raise
        finally:
            run = stream.close()
        if run.stopped == "failed":
            raise LabError(run.detail or "the model failed")
        for reply in run.replies:
            self.note_reply(reply)
        return run

    def note_reply(self, reply: Reply) -> None:
        """Say that a reply was cut, and what it cost if the user wants to know."""
        if reply.stop == "length":
            count = reply.timing.tokens  # a server may not say
            note = f"stopped after {count} tokens" if count else "the reply was cut at its limit"
            self.transcript.write_note(note)
        if self.is_verbose:
            self.transcript.write_note(describe_speed(reply))

    def note_open_call(self) -> None:
        """Ask the user for the output of the next open call, if there is one."""
        if not (calls := self.open_calls):
            return
        why = "no tool here answers it" if self.tools.is_run else "no tool runs here"
        if self.turns[-1].stopped == "calls":
            why = self.turns[-1].detail
        self.transcript.write_note(
            f"{describe_open_call(self.messages, calls)}; {why}: type its output, or /undo to drop"
            " your last message, or /bye to leave"
        )

    def note_warning(self, text: str) -> None:
        """Show what the model does not see; the same text only once per conversation."""
        if text not in self._warnings:
            self.transcript.write_note(f"warning: {text}")
        self._warnings.add(text)

    def start_conversation(
        self, opening: tuple[Message, ...], tool_outputs: Mapping[str, str] | None = None
    ) -> None:
        """Start a new conversation, without the pages and variables of the last one."""
        self.turns.clear()
        self.tools.close()
        self._warnings.clear()
        self.opening, self.tool_outputs = opening, tool_outputs or {}
        self._has_warned = False

    def build_opening(self, instructions: str | None) -> tuple[Message, ...]:
        """The messages before the first question, with these instructions."""
        agent = Agent(self.model, self.tools.given, instructions=instructions)
        return agent.conversation("").messages[:-1]


def describe_speed(reply: Reply) -> str:
    """The tokens and the speed of a reply, in one line.

    Without the speed for a server, which sends several tokens at once.
    """
    timing, rate, prompt = reply.timing, "", ""
    if reply.prompt_tokens:
        speed = timing.tokens_per_second
        rate = "" if math.isnan(speed) else f", {speed:,.1f} tokens per second"
        prompt = f"prompt of {len(reply.prompt_tokens):,} tokens, "
    return (
        f"{timing.tokens:,} tokens in {timing.total:.1f} s{rate}; {prompt}first token after"
        f" {timing.first_token:.1f} s"
    )

"""A chat session: its turns and its open tool call. Its commands are in `_commands.py`.

A turn is added once its reply is complete. While the last reply has open tool calls, what the user
types is the output of the next one; otherwise it is the next question.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from oss_lab.cli._tool_outputs import ToolOutputs
from oss_lab.cli._warnings import report_warnings
from oss_lab.errors import LabError
from oss_lab.harmony.messages import Conversation, Effort, Message
from oss_lab.harmony.policy import find_dropped_messages

if TYPE_CHECKING:
    from oss_lab.cli._transcript import Transcript
    from oss_lab.harmony.tool_forms import ToolForm
    from oss_lab.lab import Lab
    from oss_lab.nano.gallery import Example
    from oss_lab.nano.turn_limit import TurnLimit
    from oss_lab.record.reply import Reply, ToolCall


class Chat:
    """The conversation so far, and what acts on it.

    Attributes:
        turns: the last reply to each line that the user typed.
        opening: the messages before the first question; an example brings its own.
        tool_outputs: the outputs of the example's tools, by the arguments of the call.
        turn_limit: how many questions the model was measured to hold, or None.
        is_verbose: whether tokens and speed are shown after each reply.
    """

    def __init__(
        self,
        lab: "Lab",
        transcript: "Transcript",
        effort: Effort,
        max_tokens: int,
        opening: tuple[Message, ...],
        tools: "Sequence[ToolForm]" = (),
        turn_limit: "TurnLimit | None" = None,
    ) -> None:
        self.lab, self.transcript = lab, transcript
        self.effort: Effort = effort
        self.max_tokens = max_tokens
        self.default_opening = self.opening = opening
        self.tool_outputs: Mapping[str, str] = {}
        self.turns: list[Reply] = []
        self.tools = tools
        self.turn_limit = turn_limit
        self.is_verbose = self._has_warned = False
        self._outputs = ToolOutputs(None)
        self._warnings: set[str] = set()  # shown in this conversation

    @property
    def messages(self) -> tuple[Message, ...]:
        """All messages of the conversation."""
        return self.turns[-1].conversation.messages if self.turns else self.opening

    @property
    def outputs(self) -> ToolOutputs:
        """The outputs that the last reply waits for."""
        last = self.turns[-1] if self.turns else None
        if self._outputs.reply is not last:
            self._outputs = ToolOutputs(last)
        return self._outputs

    @property
    def open_call(self) -> "ToolCall | None":
        """The tool call that needs the next output; None if none does."""
        return self.outputs.call

    def format_prompt(self) -> str:
        """The input prompt: the name of the called tool, or the effort of the next question."""
        call = self.open_call
        return f"{call.name if call else self.effort}> "

    def send(self, line: str) -> None:
        """Answer a question, or continue once all open calls have their outputs."""
        if self.open_call is None:
            self.answer(Conversation((*self.messages, Message.of("user", line))))
            return
        self.outputs.given.append(line)
        if self.open_call is None:
            self.answer(Conversation((*self.messages, *self.outputs.take_messages())))
        else:
            self.note_open_call()

    def warn_about_length(self, prompt: Conversation) -> None:
        """Say once per conversation that it has become longer than the model can hold."""
        asked = sum(message.role == "user" for message in prompt)
        if self.turn_limit and asked > self.turn_limit.turns and not self._has_warned:
            note = f"this is question {asked}; {self.turn_limit.sentence}; /reset starts a new one"
            self.transcript.write_note(note)
            self._has_warned = True

    def answer(self, prompt: Conversation) -> None:
        """Stream the reply, and more replies while the example has outputs for its calls.

        If the user stops it, the whole turn is discarded.
        """
        self.warn_about_length(prompt)
        try:
            reply = self.reply_to(prompt)
        except KeyboardInterrupt:
            self.transcript.write_note("stopped; this turn was discarded")
        except LabError as error:
            hint = "; use /undo or /reset to continue" if self.turns else ""
            self.transcript.write_note(f"{error}{hint}")
        else:
            if reply.stop == "length":
                self.transcript.write_note(f"stopped after {len(reply.tokens)} tokens")
            if self.is_verbose:
                self.transcript.write_note(describe_speed(reply))
            self.turns.append(reply)
        self.note_open_call()

    def reply_to(self, prompt: Conversation) -> "Reply":
        """Generate replies while their calls have known outputs; return the last reply."""
        from oss_lab.record.calls import ROUNDS, append_outputs

        reply = self.stream_reply(prompt)
        for _ in range(ROUNDS - 1):
            next_prompt = append_outputs(reply, lambda call: self.tool_outputs.get(call.arguments))
            if next_prompt is None:
                break
            for message in next_prompt.messages[len(reply.conversation) :]:
                self.transcript.show_message(message)
            reply = self.stream_reply(next_prompt)
        return reply

    def stream_reply(self, prompt: Conversation) -> "Reply":
        """Generate one reply and show it as it is generated."""
        with report_warnings(self.note_warning):
            stream = self.lab.stream(prompt, effort=self.effort, max_tokens=self.max_tokens)
        for event in stream:
            self.transcript.show_event(event)
        return stream.reply

    def note_open_call(self) -> None:
        """Ask the user for the output of the next open call, if there is one."""
        if call := self.open_call:
            which, arguments = self.outputs.place, " ".join(call.arguments.split())
            self.transcript.write_note(
                f"{which}the model calls {call.name} with {arguments}; no tool runs here: type its"
                " output, or /undo to drop the question, or /bye to leave"
            )

    def note_warning(self, text: str) -> None:
        """Show what the model does not see; the same text only once per conversation."""
        if text not in self._warnings:
            self.transcript.write_note(f"warning: {text}")
        self._warnings.add(text)

    def start_conversation(
        self, opening: tuple[Message, ...], tool_outputs: Mapping[str, str] | None = None
    ) -> None:
        """Start a new conversation."""
        self.turns.clear()
        self._warnings.clear()
        self.opening, self.tool_outputs = opening, tool_outputs or {}
        self._has_warned = False

    def build_opening(self, instructions: str | None) -> tuple[Message, ...]:
        """The messages before the first question, with these instructions."""
        asked = self.lab.conversation("", instructions=instructions, tools=self.tools)
        return asked.messages[:-1]

    def show_example(self, example: "Example") -> None:
        """Start a new conversation with the example's messages and effort, and ask its question."""
        prompt = example.prompt(self.lab)
        self.start_conversation(prompt.messages[:-1], example.tool_outputs)
        self.effort = example.effort
        self.transcript.write_note(f"{example.name}, effort {example.effort}: {example.shows}")
        for message in prompt:
            if message.role != "system":
                self.transcript.show_message(message)
        self.answer(prompt)

    def show_history(self) -> None:
        """Show every message except the system's; mark those the model will not see again."""
        messages = self.messages
        dropped = find_dropped_messages(messages, "spec", "completion")
        shown = [n for n, message in enumerate(messages) if message.role != "system"]
        for index in shown:
            remark = " not shown to the model again" if index in dropped else ""
            self.transcript.show_message(messages[index], remark)
        if not shown:
            self.transcript.write_note("the conversation is empty")


def describe_speed(reply: "Reply") -> str:
    """The tokens and the speed of a reply, in one line."""
    timing = reply.timing
    speed = timing.tokens_per_second
    rate = "" if math.isnan(speed) else f", {speed:,.1f} tokens per second"
    return (
        f"{timing.tokens:,} tokens in {timing.total:.1f} s{rate}; prompt of"
        f" {len(reply.prompt_tokens):,} tokens, first token after {timing.first_token:.1f} s"
    )

"""A chat session: its turns, its open tool call and its commands.

A turn is added once its reply is complete. If the last reply ends with a tool call, the next line
that the user types is the tool's output; otherwise it is the next question.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from oss_lab.errors import LabError
from oss_lab.harmony.messages import EFFORTS, Conversation, Effort, Message
from oss_lab.harmony.policy import find_dropped_messages

if TYPE_CHECKING:
    from oss_lab.cli._transcript import Transcript
    from oss_lab.lab import Lab
    from oss_lab.nano.gallery import Example
    from oss_lab.record.reply import Reply, ToolCall

COMMANDS = {
    "/example": "list example questions; with a number, ask that one in a new conversation",
    "/effort": "set how much to think: low, medium or high",
    "/undo": "remove your last message and the reply to it",
    "/history": "show the conversation",
    "/reset": "start a new conversation",
    "/help": "list these commands",
    "/quit": "leave (or press Ctrl-D)",
}


class Chat:
    """The conversation so far, and the commands that act on it.

    Attributes:
        turns: the last reply to each line that the user typed.
        opening: the messages before the first question; an example brings its own.
        tool_outputs: the outputs of the example's tools, by the arguments of the call.
    """

    def __init__(
        self,
        lab: "Lab",
        transcript: "Transcript",
        effort: Effort,
        max_tokens: int,
        opening: tuple[Message, ...],
    ) -> None:
        self.lab, self.transcript = lab, transcript
        self.effort: Effort = effort
        self.max_tokens = max_tokens
        self.default_opening = self.opening = opening
        self.tool_outputs: Mapping[str, str] = {}
        self.turns: list[Reply] = []

    @property
    def messages(self) -> tuple[Message, ...]:
        """All messages of the conversation."""
        return self.turns[-1].conversation.messages if self.turns else self.opening

    @property
    def open_call(self) -> "ToolCall | None":
        """The tool call at the end of the last reply, which needs an output; None if none does."""
        last = self.turns[-1] if self.turns else None
        return last.tool_calls[-1] if last and last.stop == "call" and last.tool_calls else None

    def format_prompt(self) -> str:
        """The input prompt: the name of the called tool, or the effort of the next question."""
        call = self.open_call
        return f"{call.name if call else self.effort}> "

    def send(self, line: str) -> None:
        """Answer a question, or continue with the output of the open call."""
        from oss_lab.record.calls import tool_message

        call = self.open_call
        message = tool_message(call, line) if call else Message.of("user", line)
        self.answer(Conversation((*self.messages, message)))

    def answer(self, prompt: Conversation) -> None:
        """Stream the reply, and more replies while the example has outputs for its calls.

        If the user stops it, the whole turn is discarded.
        """
        try:
            reply = self.reply_to(prompt)
        except KeyboardInterrupt:
            self.transcript.write_note("stopped; this turn was discarded")
        except LabError as error:
            hint = "; use /undo or /reset to make room" if self.turns else ""
            self.transcript.write_note(f"{error}{hint}")
        else:
            if reply.stop == "length":
                self.transcript.write_note(f"stopped after {len(reply.tokens)} tokens")
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
        stream = self.lab.stream(prompt, effort=self.effort, max_tokens=self.max_tokens)
        for event in stream:
            self.transcript.show_event(event)
        return stream.reply

    def note_open_call(self) -> None:
        """Ask the user for the output of the open call, if there is one."""
        if call := self.open_call:
            arguments = " ".join(call.arguments.split())
            self.transcript.write_note(
                f"the model calls {call.name} with {arguments}; no tool runs here: type its output,"
                " or /undo"
            )

    def start_conversation(
        self, opening: tuple[Message, ...], tool_outputs: Mapping[str, str] | None = None
    ) -> None:
        """Start a new conversation."""
        self.turns.clear()
        self.opening, self.tool_outputs = opening, tool_outputs or {}

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

    def example_command(self, argument: str) -> None:
        """List the examples, or show the one with this number."""
        from oss_lab.nano.gallery import GALLERY

        numbered = {str(number): example for number, example in enumerate(GALLERY, 1)}
        if argument in numbered:
            self.show_example(numbered[argument])
        elif argument:
            self.transcript.write_note(f"/example takes a number from 1 to {len(GALLERY)}")
        else:
            for number, example in numbered.items():
                self.transcript.write_note(f"{number:>2}  {example.name}")

    def run_command(self, line: str) -> None:
        """Run a command: a line that begins with a slash."""
        name, _, argument = line.partition(" ")
        argument = argument.strip()
        if name == "/effort" and argument in EFFORTS:
            self.effort = argument
            self.transcript.write_note(f"effort is now {self.effort}")
        elif name == "/effort":
            still = "still " if argument else ""
            choices = ", ".join(EFFORTS)
            self.transcript.write_note(f"effort is {still}{self.effort}; /effort takes {choices}")
        elif name == "/example":
            self.example_command(argument)
        elif name not in COMMANDS:
            self.transcript.write_note(f"there is no {name}; /help lists the commands")
        elif argument:
            self.transcript.write_note(f"{name} takes no argument")
        elif name == "/undo":
            undone = bool(self.turns) and bool(self.turns.pop())
            self.transcript.write_note(
                "removed the last turn" if undone else "there is nothing to undo"
            )
            self.note_open_call()
        elif name == "/reset":
            self.start_conversation(self.default_opening)
            self.transcript.write_note("started a new conversation")
        elif name == "/history":
            self.show_history()
        elif name == "/help":
            for command, help in COMMANDS.items():
                self.transcript.write_note(f"{command}  {help}")

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

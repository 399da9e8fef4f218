"""The session of a chat: its turns, the calls that wait for an output, its commands.

A turn is kept once its reply is whole. Whose line comes next follows from the last reply: one that
ends in a call waits for the tool's output, any other for the user.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from oss_lab.errors import LabError
from oss_lab.harmony.messages import EFFORTS, Conversation, Effort, Message
from oss_lab.harmony.policy import dropped_messages

if TYPE_CHECKING:
    from oss_lab.cli._transcript import Transcript
    from oss_lab.lab import Lab
    from oss_lab.nano.gallery import Example
    from oss_lab.record.reply import Reply, ToolCall

COMMANDS = {
    "/example": "list nano's gallery; with a number, ask that example in a new conversation",
    "/effort": "low, medium or high: how much to think from now on",
    "/undo": "take back what was typed last and the reply to it",
    "/history": "show the conversation",
    "/reset": "begin a new conversation",
    "/help": "show this",
    "/quit": "leave (or Ctrl-D)",
}


class Chat:
    """The conversation so far and what may be done with it.

    Attributes:
        turns: what is kept of each line that was answered: the reply that ended it.
        opening: the messages before the first question, those of the example if one is shown.
        tool_outputs: what that example's tools answer, by the arguments of the call.
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
        self.own_opening = self.opening = opening
        self.tool_outputs: Mapping[str, str] = {}
        self.turns: list[Reply] = []

    @property
    def messages(self) -> tuple[Message, ...]:
        """The whole conversation."""
        return self.turns[-1].conversation.messages if self.turns else self.opening

    @property
    def open_call(self) -> "ToolCall | None":
        """The call that the last reply ended in, which waits for its output."""
        last = self.turns[-1] if self.turns else None
        return last.tool_calls[-1] if last and last.stop == "call" and last.tool_calls else None

    def prompt(self) -> str:
        """Who the next line is taken to come from: the tool that is called, else the user."""
        call = self.open_call
        return f"{call.name if call else self.effort}> "

    def say(self, line: str) -> None:
        """Answer a question, or go on from the output that an open call waits for."""
        from oss_lab.record.calls import tool_message

        call = self.open_call
        said = tool_message(call, line) if call else Message.of("user", line)
        self.answer(Conversation((*self.messages, said)))

    def answer(self, prompt: Conversation) -> None:
        """Stream the reply, and others behind outputs that the example brings; nothing of it is
        kept if it is stopped."""
        try:
            reply = self.replied(prompt)
        except KeyboardInterrupt:
            self.transcript.note("stopped; this turn is taken back")
        except LabError as error:
            room = "; /undo and /reset make room" if self.turns else ""
            self.transcript.note(f"{error}{room}")
        else:
            if reply.stop == "length":
                self.transcript.note(f"stopped after {len(reply.tokens)} tokens")
            self.turns.append(reply)
        self.tell_open_call()

    def replied(self, prompt: Conversation) -> "Reply":
        """Replies, until one waits for no output that is known; the last."""
        from oss_lab.record.calls import ROUNDS, with_outputs

        reply = self.streamed(prompt)
        for _ in range(ROUNDS - 1):
            further = with_outputs(reply, lambda call: self.tool_outputs.get(call.arguments))
            if further is None:
                break
            for message in further.messages[len(reply.conversation) :]:
                self.transcript.message(message)
            reply = self.streamed(further)
        return reply

    def streamed(self, prompt: Conversation) -> "Reply":
        """One reply, shown while it is written."""
        stream = self.lab.stream(prompt, effort=self.effort, max_tokens=self.max_tokens)
        for event in stream:
            self.transcript.event(event)
        return stream.reply

    def tell_open_call(self) -> None:
        """Say whose turn it is where a call waits."""
        if call := self.open_call:
            arguments = " ".join(call.arguments.split())
            self.transcript.note(
                f"{call.name} is called with {arguments}; you are the tool: what you type next is"
                " its output"
            )

    def begin(
        self, opening: tuple[Message, ...], tool_outputs: Mapping[str, str] | None = None
    ) -> None:
        """A new conversation."""
        self.turns.clear()
        self.opening, self.tool_outputs = opening, tool_outputs or {}

    def show_example(self, example: "Example") -> None:
        """A new conversation in the example's setting and at its effort, with its question."""
        prompt = example.prompt(self.lab)
        self.begin(prompt.messages[:-1], example.tool_outputs)
        self.effort = example.effort
        self.transcript.note(f"{example.name}, effort {example.effort}: {example.shows}")
        for message in prompt:
            if message.role != "system":
                self.transcript.message(message)
        self.answer(prompt)

    def example_command(self, argument: str) -> None:
        """List the gallery, or show the example of this number."""
        from oss_lab.nano.gallery import GALLERY

        numbered = {str(number): example for number, example in enumerate(GALLERY, 1)}
        if argument in numbered:
            self.show_example(numbered[argument])
        elif argument:
            self.transcript.note(f"/example takes a number from 1 to {len(GALLERY)}")
        else:
            for number, example in numbered.items():
                self.transcript.note(f"{number:>2}  {example.name}")

    def command(self, line: str) -> None:
        """Obey a line that begins with a slash."""
        name, _, argument = line.partition(" ")
        argument = argument.strip()
        if name == "/effort" and argument in EFFORTS:
            self.effort = argument
            self.transcript.note(f"effort {self.effort} from now on")
        elif name == "/effort":
            self.transcript.note(f"effort is {self.effort}; /effort takes {', '.join(EFFORTS)}")
        elif name == "/example":
            self.example_command(argument)
        elif name not in COMMANDS:
            self.transcript.note(f"there is no {name}; /help lists the commands")
        elif argument:
            self.transcript.note(f"{name} takes nothing behind it")
        elif name == "/undo":
            undone = bool(self.turns) and bool(self.turns.pop())
            self.transcript.note("the last turn is gone" if undone else "there is nothing to undo")
            self.tell_open_call()
        elif name == "/reset":
            self.begin(self.own_opening)
            self.transcript.note("a new conversation")
        elif name == "/history":
            self.show_history()
        elif name == "/help":
            for command, help in COMMANDS.items():
                self.transcript.note(f"{command}  {help}")

    def show_history(self) -> None:
        """Every message but the system's, and which ones the model will not see again."""
        messages = self.messages
        dropped = dropped_messages(messages, "spec", "completion")
        shown = [n for n, message in enumerate(messages) if message.role != "system"]
        for index in shown:
            remark = " not shown to the model again" if index in dropped else ""
            self.transcript.message(messages[index], remark)
        if not shown:
            self.transcript.note("nothing was said yet")

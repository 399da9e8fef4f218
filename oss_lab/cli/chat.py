"""`oss-lab chat`: talk to a model and see its channels while it thinks.

The conversation is kept and rendered with the `spec` policy: the model does not see again what it
thought in turns that it has answered. Lines are read plainly where there is no terminal on both
sides. Ctrl-C stops the answer, and that turn is taken back; tools are declared to nobody.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from oss_lab.errors import LabError
from oss_lab.harmony.messages import EFFORTS, Conversation, Effort, Message
from oss_lab.harmony.policy import dropped_messages

if TYPE_CHECKING:
    from prompt_toolkit.history import History

    from oss_lab.cli._transcript import Transcript
    from oss_lab.lab import Lab

COMMANDS = {
    "/effort": "low, medium or high: how much to think from now on",
    "/undo": "take back the last turn",
    "/history": "show the conversation",
    "/reset": "begin a new conversation",
    "/help": "show this",
    "/quit": "leave (or Ctrl-D)",
}


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("chat", help="talk to a model", description=__doc__)
    parser.add_argument(
        "model",
        nargs="?",
        default="nano",
        metavar="MODEL",
        help="nano, 20b, 120b or a checkpoint folder (default: nano)",
    )
    parser.add_argument("--download", action="store_true", help="fetch 20b or 120b if need be")
    parser.add_argument("--effort", choices=EFFORTS, help="default: medium; nano's is high")
    parser.add_argument(
        "--max-tokens", type=int, default=2048, help="most tokens of an answer (default: 2048)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if args.max_tokens < 1:
        raise LabError(f"--max-tokens is {args.max_tokens}; it must be 1 or more.")
    from oss_lab.cli._transcript import Transcript
    from oss_lab.loading import load
    from oss_lab.train.tasks import ABILITIES

    lab = load(args.model, download=args.download, verbose=sys.stderr.isatty())
    transcript = Transcript(sys.stdout)
    effort = args.effort or lab.effort
    transcript.note(f"{args.model}, effort {effort}; /help lists the commands")
    single_turns = lab.encoding.name == "nano"
    if single_turns:
        transcript.note(f"{ABILITIES} Each question begins a new conversation.")
    chat = Chat(lab, transcript, effort, args.max_tokens, single_turns)
    for line in lines(transcript, chat):
        if line == "/quit":
            break
        if line.startswith("/"):
            chat.command(line)
        elif line:
            chat.ask(line)
    return 0


class Chat:
    """The conversation so far and what may be done with it.

    Attributes:
        turns: the whole conversation after each turn.
        single_turns: forget the last turn at each question, for a model that learnt no more.
    """

    def __init__(
        self,
        lab: "Lab",
        transcript: "Transcript",
        effort: Effort,
        max_tokens: int,
        single_turns: bool = False,
    ) -> None:
        self.lab, self.transcript = lab, transcript
        self.effort: Effort = effort
        self.max_tokens = max_tokens
        self.single_turns = single_turns
        self.turns: list[Conversation] = []

    def ask(self, question: str) -> None:
        """Answer, streaming; the turn is kept only if the answer was not stopped."""
        if self.single_turns:
            self.turns.clear()
        if self.turns:
            earlier = self.turns[-1].messages
            prompt = Conversation((*earlier, Message.of("user", question)))
        else:
            prompt = self.lab.conversation(question)
        try:
            stream = self.lab.stream(prompt, effort=self.effort, max_tokens=self.max_tokens)
            for event in stream:
                self.transcript.event(event)
        except KeyboardInterrupt:
            self.transcript.note("stopped; this turn is taken back")
        except LabError as error:
            room = " /undo and /reset make room." if self.turns else ""
            self.transcript.note(f"{error}{room}")
        else:
            if stream.reply.stop == "length":
                self.transcript.note(f"stopped after {len(stream.reply.tokens)} tokens")
            self.turns.append(stream.reply.conversation)

    def command(self, line: str) -> None:
        """Obey a line that begins with a slash."""
        name, _, argument = line.partition(" ")
        argument = argument.strip()
        if name == "/effort" and argument in EFFORTS:
            self.effort = argument
            self.transcript.note(f"effort {self.effort} from now on")
        elif name == "/effort":
            self.transcript.note(f"effort is {self.effort}; /effort takes {', '.join(EFFORTS)}")
        elif name not in COMMANDS:
            self.transcript.note(f"there is no {name}; /help lists the commands")
        elif argument:
            self.transcript.note(f"{name} takes nothing behind it")
        elif name == "/undo":
            undone = bool(self.turns) and bool(self.turns.pop())
            self.transcript.note("the last turn is gone" if undone else "there is nothing to undo")
        elif name == "/reset":
            self.turns.clear()
            self.transcript.note("a new conversation")
        elif name == "/history":
            self.show_history()
        elif name == "/help":
            for command, help in COMMANDS.items():
                self.transcript.note(f"{command}  {help}")

    def show_history(self) -> None:
        """Every message but the system's, and which ones the model will not see again."""
        if not self.turns:
            self.transcript.note("nothing was said yet")
            return
        messages = self.turns[-1].messages
        dropped = dropped_messages(messages, "spec", "completion")
        for index, message in enumerate(messages):
            if message.role != "system":
                remark = " not shown to the model again" if index in dropped else ""
                self.transcript.message(message, remark)


def lines(transcript: "Transcript", chat: Chat) -> Iterator[str]:
    """What the person types, stripped; ends with the input."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        for line in sys.stdin:
            transcript.text(f"> {line.strip()}\n")
            yield line.strip()
        return
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter

    completer = WordCompleter(list(COMMANDS), sentence=True)
    session = PromptSession(history=saved_history(transcript), completer=completer)
    while True:
        try:
            line = session.prompt(lambda: f"{chat.effort}> ").strip()
        except KeyboardInterrupt:  # at the prompt it clears the line, as in a shell
            continue
        except EOFError:
            return
        yield line


def saved_history(transcript: "Transcript") -> "History":
    """The lines typed in earlier chats, from the user's own data folder."""
    from platformdirs import user_data_path
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    file = Path(user_data_path("oss-lab", appauthor=False)) / "chat_history"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
    except OSError as error:
        transcript.note(f"what you type is not kept: {file}: {error.strerror}")
        return InMemoryHistory()
    return FileHistory(str(file))

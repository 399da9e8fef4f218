"""`oss-lab chat`: talk to a model and see its channels while it thinks.

The conversation is kept and rendered with the `spec` policy: the model does not see again what it
thought in turns that it has answered. Lines are read plainly where there is no terminal on both
sides. Ctrl-C stops the answer, and that turn is taken back. Nothing is run for the model: when it
calls a tool, what the person types next is the tool's output (examples bring their own).
"""

import argparse
import sys

from oss_lab.cli._session import COMMANDS, Chat
from oss_lab.errors import LabError
from oss_lab.harmony.messages import EFFORTS


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command and its arguments."""
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
    parser.add_argument("--instructions", metavar="TEXT", help="what the developer message says")
    parser.add_argument(
        "--calculator", action="store_true", help="declare a calculator; you answer its calls"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Load the model, then answer what is typed until /quit or the end of the input."""
    if args.max_tokens < 1:
        raise LabError(f"--max-tokens is {args.max_tokens}; it must be 1 or more")
    from oss_lab.cli._transcript import Transcript
    from oss_lab.cli._typed import typed_lines
    from oss_lab.lab import load
    from oss_lab.nano.gallery import ABILITIES
    from oss_lab.nano.tasks.settings import CALCULATOR_TOOL

    lab = load(args.model, download=args.download, verbose=sys.stderr.isatty())
    transcript = Transcript(sys.stdout)
    effort = args.effort or lab.effort
    transcript.note(f"{args.model}, effort {effort}; /help lists the commands")
    if lab.encoding.name == "nano":
        transcript.note(f"{ABILITIES} /example lists questions to try.")
    tools = (CALCULATOR_TOOL,) if args.calculator else ()
    begun = lab.conversation("", instructions=args.instructions, tools=tools)
    chat = Chat(lab, transcript, effort, args.max_tokens, begun.messages[:-1])
    for line in typed_lines(transcript, chat.prompt, COMMANDS):
        if line == "/quit":
            break
        if line.startswith("/"):
            chat.command(line)
        elif line:
            chat.say(line)
    return 0

"""`oss-lab chat`: talk to a model and see its channels while it thinks.

The conversation is kept and rendered with the `spec` policy: the model does not see again what it
thought in turns that it has answered. Lines are read plainly where there is no terminal on both
sides. Ctrl-C stops the answer, and that turn is taken back. Nothing is run for the model: when it
calls a tool, what you type next is the tool's output (examples bring their own).
"""

import sys

from oss_lab.cli._options import (
    AskedEffort,
    Calculator,
    Checkpoint,
    Download,
    Instructions,
    MaxTokens,
)
from oss_lab.cli._session import COMMANDS, Chat


def run(
    checkpoint: Checkpoint = "nano",
    download: Download = False,
    effort: AskedEffort = None,
    max_tokens: MaxTokens = 2048,
    instructions: Instructions = None,
    calculator: Calculator = False,
) -> int:
    """Talk to a model."""
    from oss_lab.cli._transcript import Transcript
    from oss_lab.cli._typed import typed_lines
    from oss_lab.lab import load
    from oss_lab.nano.gallery import ABILITIES
    from oss_lab.nano.tasks.settings import CALCULATOR_TOOL

    lab = load(checkpoint, download=download, verbose=sys.stderr.isatty())
    transcript = Transcript(sys.stdout)
    effort = effort or lab.effort
    transcript.note(f"{checkpoint}, effort {effort}; /help lists the commands")
    if lab.tokenizer.name == "nano":
        transcript.note(f"{ABILITIES} /example lists questions to try.")
    tools = (CALCULATOR_TOOL,) if calculator else ()
    begun = lab.conversation("", instructions=instructions, tools=tools)
    chat = Chat(lab, transcript, effort, max_tokens, begun.messages[:-1])
    for line in typed_lines(transcript, chat.prompt, COMMANDS):
        if line == "/quit":
            break
        if line.startswith("/"):
            chat.command(line)
        elif line:
            chat.say(line)
    return 0

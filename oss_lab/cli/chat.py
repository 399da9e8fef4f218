"""`oss-lab chat`: talk to a model and watch each channel of its replies.

The model sees the whole conversation, except the chain of thought of turns that it has answered
(Harmony's `spec` policy). Ctrl-C stops a reply and discards that turn. No tool is run: if the model
calls one, type the tool's output (examples bring their own). Questions can also come from a pipe,
one per line. Put text of several lines between three double quotes. /help lists the commands.
"""

import sys

from oss_lab.cli._options import (
    AskedEffort,
    Calculator,
    Checkpoint,
    Download,
    Instructions,
    MaxTokens,
    has_error_terminal,
)
from oss_lab.cli._session import Chat


def run(
    checkpoint: Checkpoint = "nano",
    download: Download = False,
    effort: AskedEffort = None,
    max_tokens: MaxTokens = 2048,
    instructions: Instructions = None,
    calculator: Calculator = False,
) -> int:
    """Chat with a model in the terminal."""
    from oss_lab.cli._commands import COMMANDS, EXIT_COMMANDS, run_command
    from oss_lab.cli._transcript import Transcript
    from oss_lab.cli._typed import read_typed
    from oss_lab.lab import load
    from oss_lab.nano.gallery import ABILITIES
    from oss_lab.nano.tasks.settings import CALCULATOR_TOOL
    from oss_lab.nano.turn_limit import find_turn_limit

    lab = load(checkpoint, download=download, verbose=has_error_terminal())
    transcript = Transcript(sys.stdout)
    effort = effort or lab.effort
    limit = find_turn_limit(lab)
    transcript.write_note(f"{checkpoint}, effort {effort}; /help lists the commands")
    if lab.tokenizer.name == "nano":
        warning = f" But {limit.sentence}." if limit else ""
        transcript.write_note(f"/example lists questions to try. {ABILITIES}{warning}")
    tools = (CALCULATOR_TOOL,) if calculator else ()
    opening = lab.conversation("", instructions=instructions, tools=tools).messages[:-1]
    chat = Chat(lab, transcript, effort, max_tokens, opening, tools, limit)
    for typed in read_typed(transcript, chat.format_prompt, [*COMMANDS, *EXIT_COMMANDS]):
        if typed.command in EXIT_COMMANDS:
            break
        if typed.command:
            run_command(chat, typed.command, typed.text)
        elif typed.text or chat.open_call:
            chat.send(typed.text)
    return 0

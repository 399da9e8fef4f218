"""`oss-lab chat`: talk to a model and watch each channel of its replies.

The model sees the whole conversation, except the chain of thought of turns that it has answered
(Harmony's `spec` policy). Ctrl-C stops a reply or a call and discards that turn. Questions can also
come from a pipe, one per line. Put text of several lines between three double quotes. /help lists
the commands.

--tools runs what the model calls: `calculator`, `browser` (it reads the lessons of this project)
and `python` (in a sandbox, or not at all). Pages and variables last until /reset. /calls shows the
last calls in full. You type the output of any other call, and of all calls with `--calls 0`;
examples bring their own.

CHECKPOINT can be the address of a server, such as http://127.0.0.1:8000/v1 of `oss-lab serve`.
"""

import os
import re
import sys
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from oss_lab.cli._options import AskedEffort, Download, Instructions, MaxTokens, has_error_terminal
from oss_lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oss_lab.cli._session import Chat
    from oss_lab.lab import Lab
    from oss_lab.server.remote import Connection

ADDRESSES = ("http://", "https://")


def run(
    checkpoint: Annotated[
        str,
        Argument(
            metavar="CHECKPOINT",
            help="nano, 20b, 120b, a Hub id, a checkpoint folder, or a server's address",
        ),
    ] = "nano",
    download: Download = False,
    effort: AskedEffort = None,
    max_tokens: MaxTokens = 2048,
    instructions: Instructions = None,
    tools: Annotated[
        str | None,
        Option(metavar="NAME[,NAME...]", help="tools to run: calculator, browser, python"),
    ] = None,
    calls: Annotated[
        int | None,
        Option(min=0, help="maximum calls per message (default: 16); with 0, you type the outputs"),
    ] = None,
    model: Annotated[str | None, Option(help="name of the model on the server")] = None,
    token: Annotated[
        str | None,
        Option(help="access token of the server (default: OSS_LAB_TOKEN)"),
    ] = None,
) -> int:
    """Chat with a model in the terminal."""
    from contextlib import closing

    from oss_lab.agents import Budget
    from oss_lab.cli._commands import COMMANDS, EXIT_COMMANDS, run_command
    from oss_lab.cli._saved import check_conversation
    from oss_lab.cli._session import Chat
    from oss_lab.cli._tools import OpenTools, read_names
    from oss_lab.cli._transcript import Transcript
    from oss_lab.cli._typed import read_typed
    from oss_lab.harmony.messages import Conversation
    from oss_lab.lab import Lab
    from oss_lab.nano.turn_limit import find_turn_limit
    from oss_lab.server.remote import Connection

    names = () if tools is None else read_names(tools)
    if calls is not None and not names:
        raise LabError("--calls limits the tools that are run: add --tools")
    lab = open_model(checkpoint, model, token, download=download)
    transcript = Transcript(sys.stdout)
    effort = effort or lab.effort
    name = f"{lab.model} at {lab.url}" if isinstance(lab, Connection) else checkpoint
    transcript.write_note(f"{name}, effort {effort}; /help lists the commands")
    with closing(OpenTools(names, transcript.write_note, is_run=calls != 0)) as opened:
        opened.open(lab)
        chat = Chat(
            lab,
            transcript,
            effort,
            max_tokens,
            instructions=instructions,
            tools=opened,
            budget=Budget(calls=calls) if calls else None,
            turn_limit=find_turn_limit(lab) if isinstance(lab, Lab) else None,
        )
        check_conversation(lab, Conversation(chat.opening))
        greet(chat, names)
        for typed in read_typed(transcript, chat.format_prompt, [*COMMANDS, *EXIT_COMMANDS]):
            if typed.command in EXIT_COMMANDS:
                break
            if typed.command:
                run_command(chat, typed.command, typed.text)
            elif typed.text or chat.open_calls:
                chat.send(typed.text)
    return 0


def open_model(
    checkpoint: str, model: str | None, token: str | None, *, download: bool
) -> "Lab | Connection":
    """Load a checkpoint, or connect to a server.

    Raises:
        LabError: it cannot be opened, or an option belongs to the other kind of model.
    """
    if not checkpoint.startswith(ADDRESSES):
        from oss_lab.lab import load

        for option, value in (("--model", model), ("--token", token)):
            if value is not None:
                raise LabError(
                    f"{option} is for a model on a server: give its address as CHECKPOINT, such as"
                    " http://127.0.0.1:8000/v1"
                )
        if re.match(r"[\w.-]+:\d+(/|$)", checkpoint):
            raise LabError(f"{checkpoint}: an address starts with http:// or https://")
        return load(checkpoint, download=download, verbose=has_error_terminal())
    from oss_lab.server.remote import connect

    if download:
        raise LabError("--download fetches a checkpoint, and a server has its own: leave it out")
    return connect(checkpoint, model=model, token=token or os.environ.get("OSS_LAB_TOKEN"))


def greet(chat: "Chat", names: "Sequence[str]") -> None:
    """Say what the model and its tools can do."""
    from oss_lab.nano.gallery import ABILITIES

    note, tokenizer = chat.transcript.write_note, getattr(chat.model, "tokenizer", None)
    is_nano = tokenizer is not None and tokenizer.name == "nano"
    if is_nano:
        warning = f" But {chat.turn_limit.sentence}." if chat.turn_limit else ""
        note(f"/example lists questions to try. {ABILITIES}{warning}")
    if tokenizer is None:
        note("a server sends only text: to look inside a model, give its checkpoint instead")
    if not names:
        return
    listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    if chat.tools.is_run:
        limit = f"at most {chat.budget.calls} calls per message"
        note(f"tools: {listed}, {limit}; /calls shows the last calls in full")
    else:
        note(f"tools: {listed}, only declared to the model: you type the output of each call")
    if is_nano and (unknown := [name for name in names if name != "calculator"]):
        listed = " or ".join(unknown)
        note(f"nano never learned to use {listed}; it answers worse if such a tool is declared")

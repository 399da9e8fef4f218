"""The commands of a chat: what a line that begins with a slash does."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from oss_lab.cli._calls import list_calls, show_calls
from oss_lab.cli._saved import load_chat, save_chat
from oss_lab.cli._session import Chat
from oss_lab.cli._warnings import report_warnings
from oss_lab.errors import LabError
from oss_lab.harmony.messages import EFFORTS, DeveloperContent
from oss_lab.harmony.policy import find_dropped_messages
from oss_lab.nano import gallery


@dataclass(frozen=True)
class Command:
    """What a command does, in a few words, and its function; it gets the text after the name.

    `argument` is how /help names that text; "" if the command takes none.
    """

    help: str
    run: Callable[[Chat, str], None]
    argument: str = ""


def run_command(chat: Chat, name: str, argument: str) -> None:
    """Run a command; a mistake is reported in the chat."""
    command = COMMANDS.get(name)
    try:
        if command is None:
            near = get_close_matches(name, COMMANDS, n=1)
            hint = f"did you mean {near[0]}? /help" if near else "/help"
            raise LabError(
                f"there is no {name}; {hint} lists the commands, and /{name} sends it as text"
            )
        if argument and not command.argument:
            raise LabError(f"{name} takes no argument")
        with report_warnings(chat.note_warning):
            command.run(chat, argument)
    except LabError as error:
        chat.transcript.write_note(str(error))


def set_effort(chat: Chat, argument: str) -> None:
    choices = f"/effort takes {', '.join(EFFORTS)}"
    if not argument:
        raise LabError(f"effort is {chat.effort}; {choices}")
    if argument not in EFFORTS:
        raise LabError(f"there is no effort {argument!r}; {choices} (it is still {chat.effort})")
    chat.effort = argument
    chat.transcript.write_note(f"effort is now {chat.effort}")


def set_system(chat: Chat, argument: str) -> None:
    """Show the instructions, or start a new conversation with others; `-` removes them."""
    if not argument:
        parts = [part for message in chat.default_opening for part in message.content]
        given = [part.instructions for part in parts if isinstance(part, DeveloperContent)]
        text = next(filter(None, given), None)
        chat.transcript.write_note(
            "there are no instructions; set some with /system TEXT"
            if text is None
            else f"the instructions are: {text}"
        )
        return
    instructions = None if argument == "-" else argument
    chat.default_opening = chat.build_opening(instructions)
    chat.start_conversation(chat.default_opening)
    which = "without instructions" if instructions is None else "with these instructions"
    chat.transcript.write_note(f"started a new conversation {which}")


def show_examples(chat: Chat, argument: str) -> None:
    """List the examples, or ask the one with this number."""
    numbered = {str(number): example for number, example in enumerate(gallery.GALLERY, 1)}
    if argument in numbered:
        ask_example(chat, numbered[argument])
    elif argument:
        raise LabError(f"/example takes a number from 1 to {len(numbered)}")
    else:
        for number, example in numbered.items():
            chat.transcript.write_note(f"{number:>2}  {example.name}")


def ask_example(chat: Chat, example: gallery.Example) -> None:
    """Start a new conversation with the example's messages and effort, and ask its question."""
    prompt = example.prompt(chat.model)
    chat.start_conversation(prompt.messages[:-1], example.tool_outputs)
    chat.effort = example.effort
    chat.transcript.write_note(f"{example.name}, effort {example.effort}: {example.shows}")
    for message in prompt:
        if message.role != "system":
            chat.transcript.show_message(message)
    chat.answer(prompt)


def show_last_calls(chat: Chat, _: str) -> None:
    records = list_calls(chat.turns)
    if not records:
        raise LabError("the model called no tool since your last question")
    show_calls(chat.transcript, records)


def show_history(chat: Chat, _: str) -> None:
    """Show every message except the system's; mark those the model will not see again."""
    dropped = find_dropped_messages(chat.messages, "spec", "completion")
    shown = [n for n, message in enumerate(chat.messages) if message.role != "system"]
    for index in shown:
        remark = " not shown to the model again" if index in dropped else ""
        chat.transcript.show_message(chat.messages[index], remark)
    if not shown:
        chat.transcript.write_note("the conversation is empty")


def undo(chat: Chat, _: str) -> None:
    undone = bool(chat.turns) and bool(chat.turns.pop())
    chat.transcript.write_note("removed the last turn" if undone else "there is nothing to undo")
    chat.note_open_call()


def reset(chat: Chat, _: str) -> None:
    chat.start_conversation(chat.default_opening)
    chat.transcript.write_note("started a new conversation")


def switch_verbose(chat: Chat, _: str) -> None:
    chat.is_verbose = not chat.is_verbose
    state = "shown" if chat.is_verbose else "not shown"
    chat.transcript.write_note(f"tokens and speed are {state} after each reply")


def show_help(chat: Chat, _: str) -> None:
    for name, command in COMMANDS.items():
        usage = f"{name} {command.argument}".strip()
        chat.transcript.write_note(f"{usage}  {command.help}")
    chat.transcript.write_note(
        'text of several lines: put it between """ and """; a text that begins with a slash: //text'
    )
    if limit := chat.turn_limit:
        chat.transcript.write_note(limit.sentence)


COMMANDS: dict[str, Command] = {
    "/example": Command(
        "list example questions; with a number, ask that one in a new conversation",
        show_examples,
        "[NUMBER]",
    ),
    "/effort": Command("set how much to think", set_effort, "|".join(EFFORTS)),
    "/system": Command(
        "start a new conversation with these instructions; `-` removes them",
        set_system,
        "TEXT",
    ),
    "/undo": Command("remove your last message and the reply to it", undo),
    "/history": Command("show the conversation", show_history),
    "/calls": Command("show the calls since your last question in full", show_last_calls),
    "/reset": Command("start a new conversation", reset),
    "/save": Command("save the conversation", save_chat, "FILE"),
    "/save!": Command(
        "the same, and replace an existing file",
        lambda chat, file: save_chat(chat, file, overwrite=True),
        "FILE",
    ),
    "/load": Command("continue a saved conversation", load_chat, "FILE"),
    "/verbose": Command("show tokens and speed after each reply; again to stop", switch_verbose),
    "/help": Command("list these commands", show_help),
    "/quit": Command("leave; also /bye, /exit, exit, quit or Ctrl-D", lambda chat, _: None),
}
EXIT_COMMANDS = ("/quit", "/bye", "/exit")

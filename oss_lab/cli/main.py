"""`oss-lab`: finds the command and turns a person's mistakes into one line each.

A command is a module in this folder. The signature of its function `run` is its interface, and the
module's docstring is its help; `harmony`, which has two tools, has a typer app instead. Heavy
imports belong inside `run`: `oss-lab --help` loads no torch. Exit status: 0, 1 for something that
cannot be used, 2 for a usage error, 130 after Ctrl-C, 141 for a closed pipe. Anything that is not a
person's mistake keeps its traceback.
"""

import io
import json
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Annotated, Any

from typer import Context, Exit, Option, Typer, TyperException
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from oss_lab.cli import (
    chat,
    convert,
    diff,
    eval,
    generate,
    harmony,
    inspect,
    lab,
    logits,
    record,
    trace,
    train,
)
from oss_lab.errors import LabError
from oss_lab.version import __version__

COMMANDS: tuple[ModuleType, ...] = (
    lab,
    chat,
    generate,
    eval,
    inspect,
    harmony,
    logits,
    trace,
    diff,
    record,
    convert,
    train,
)
NAMES = [module.__name__.rpartition(".")[2] for module in COMMANDS]


class Command(TyperCommand):
    """A command that lets several values follow one flag: `--tokens A B`, not `--tokens` twice."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        lists = {flag for each in self.params if getattr(each, "multiple", 0) for flag in each.opts}
        words, flag = [], []
        for word in args:
            if word.startswith("-"):
                flag = [word] if word in lists else []
            if word not in lists:
                words += [*flag, word]
        return super().parse_args(ctx, words)


def start(
    context: Context,
    version: Annotated[bool, Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """A workbench for learning how OpenAI's gpt-oss models work."""
    if version:
        print(f"oss-lab {__version__}")
        raise Exit
    if context.invoked_subcommand is None:
        context.fail(f"name a command: {', '.join(NAMES)}")


def build_group() -> TyperGroup:
    """Every command, in the order of COMMANDS."""
    app = Typer(rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]})
    app.callback(invoke_without_command=True)(start)
    app.add_typer(harmony.app, name="harmony", help=harmony.__doc__)
    for name, module in zip(NAMES, COMMANDS, strict=True):
        if module is not harmony:
            doc = module.run.__doc__
            app.command(name, cls=Command, help=module.__doc__, short_help=doc)(module.run)
    group = get_group(app)
    group.commands = {name: group.commands[name] for name in NAMES}  # typer puts groups last
    return group


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    if sys.stdout is None:  # so Python calls a closed one, as after `>&-`
        return complain("oss-lab: standard output is closed; give it a file or a pipe", status=1)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name or an answer that it cannot hold
        sys.stdout.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            with build_group().make_context("oss-lab", words) as context:
                return context.command.invoke(context)
        finally:
            sys.stdout.flush()  # so that a closed pipe is noticed here and not at shutdown
    except Exit as ended:
        return ended.exit_code
    except TyperException as error:
        if sentence := out_of_bounds(error):
            return complain(f"oss-lab: {sentence}", status=1)
        return complain(explain(error, words), status=error.exit_code)
    except BrokenPipeError:
        # What is still buffered goes nowhere instead of failing again at shutdown (Python's docs).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130
    except LabError as error:
        return complain(f"oss-lab: {error}", status=1)
    except json.JSONDecodeError as error:
        return complain(f"oss-lab: what was read is not JSON: {error}", status=1)
    except UnicodeDecodeError as error:
        return complain(f"oss-lab: what was read is not UTF-8 text: {error}", status=1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        return complain(f"oss-lab: {where}{error.strerror or error}", status=1)


def out_of_bounds(error: TyperException) -> str | None:
    """The sentence about a number that an option refuses; None for any other mistake."""
    found = getattr(error.__cause__, "errors", lambda: [{}])()[0]  # pydantic's
    bounds = found.get("ctx", {})
    bound = str(bounds.get("ge", bounds.get("le"))).removesuffix(".0")
    limit = f"{bound} or more" if "ge" in bounds else f"at most {bound}"
    option = getattr(error, "param", None)
    if option is None or not bounds.keys() & {"ge", "le"}:
        return None
    return f"{option.opts[0]} is {found['input']}; it must be {limit}"


def explain(error: TyperException, words: Sequence[str]) -> str:
    """Say which command, what is wrong, and where to look."""
    context = getattr(error, "ctx", None)  # typer leaves it out where a value is missing
    command = context.command_path if context else " ".join(["oss-lab", *words[:1]])
    text = error.format_message().replace("Value error, ", "").replace("\n\t", " ").rstrip(".")
    if errors := getattr(error.__cause__, "errors", None):  # pydantic calls the value Input
        text = text.replace("Input should", f"{errors()[0]['input']!r} should")
    return f"{command}: {text} (see {command} --help)"


def complain(line: str, *, status: int) -> int:
    """Print exactly one line on stderr, whatever a name that came from outside holds."""
    line = " ".join(line.splitlines())
    if sys.stderr is not None:  # print would take stdout for a closed one
        print("".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in line), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

"""`oss-lab`: runs a command, and prints a user's mistake as one line.

A command is a module in this folder. The signature of its function `run` is its interface, and the
module's docstring is its help text. A module with several commands has a typer app instead.
Heavy imports belong inside `run`: `oss-lab --help` must not load torch. The exit status is
0, 1 for an input that cannot be used, 2 for a usage error, 130 after Ctrl-C, or 141 for a closed
pipe. Any other exception is a bug and keeps its traceback.

Other packages add commands through entry points of the group `oss_lab.commands`, each a module of
the same form. They are searched only if the command is not one of these.
"""

import io
import json
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Annotated, Any

from typer import Context, Exit, Option, Typer, TyperException
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from oss_lab.cli import (
    chat,
    convert,
    course,
    diff,
    doctor,
    eval,
    fake,
    finetune,
    generate,
    harmony,
    inspect,
    lab,
    logits,
    notebooks,
    record,
    serve,
    trace,
    train,
)
from oss_lab.cli._pipe import discard_output
from oss_lab.cli._visible import spell
from oss_lab.errors import LabError
from oss_lab.version import __version__

COMMANDS: tuple[ModuleType, ...] = (
    lab,
    notebooks,
    course,
    doctor,
    chat,
    generate,
    serve,
    eval,
    inspect,
    harmony,
    logits,
    trace,
    diff,
    record,
    convert,
    fake,
    train,
    finetune,
)
NAMES = [module.__name__.rpartition(".")[2] for module in COMMANDS]
ENTRY_POINTS = "oss_lab.commands"


class Command(TyperCommand):
    """A command that lets several values follow one flag: `--tokens A B`, not `--tokens` twice."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        lists = {flag for each in self.params if getattr(each, "multiple", 0) for flag in each.opts}
        words, flag = [], []
        for word in args:
            if word.startswith("-") and word != "-":  # which is standard input
                flag = [word] if word in lists else []
            if word not in lists:
                words += [*flag, word]
        return super().parse_args(ctx, words)


def start(
    context: Context,
    version: Annotated[bool, Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """A workbench for learning how OpenAI's gpt-oss models work inside."""
    if version:
        print(f"oss-lab {__version__}")
        raise Exit
    if context.invoked_subcommand is None:
        group: Any = context.command
        context.fail(f"expected a command: {', '.join(group.commands)}")


def build_group(words: Sequence[str] = ()) -> TyperGroup:
    """Build the group of all commands, in the order of COMMANDS; then those of other packages."""
    commands = dict(zip(NAMES, COMMANDS, strict=True))
    if not words or words[0] not in commands:
        commands |= {name: found for name, found in find_others() if name not in commands}
    app = Typer(rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]})
    app.callback(invoke_without_command=True)(start)
    for name, module in commands.items():
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name, help=module.__doc__)
        else:
            doc = module.run.__doc__
            app.command(name, cls=Command, help=module.__doc__, short_help=doc)(module.run)
    group = get_group(app)
    group.commands = {name: group.commands[name] for name in commands}  # typer lists groups last
    return group


def find_others() -> Iterator[tuple[str, ModuleType]]:
    """The commands of other packages; one that cannot be used is reported on stderr."""
    from importlib.metadata import entry_points  # 40 ms with the search

    for found in entry_points(group=ENTRY_POINTS):
        try:
            module = found.load()
            if not callable(getattr(module, "run", None)):
                raise TypeError(f"{found.value} has no function run")
        except Exception as error:  # whatever it is: the other commands must work
            sentence = f"the command {found.name} cannot be loaded: {error}"
            print_error(f"oss-lab: {sentence}; install its package again", status=1)
        else:
            yield found.name, module


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    if sys.stdout is None:  # closed, as after `>&-`
        return print_error(
            "oss-lab: standard output is closed; redirect it to a file or a pipe", status=1
        )
    if isinstance(sys.stdout, io.TextIOWrapper):  # for characters that it cannot encode
        sys.stdout.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            with build_group(words).make_context("oss-lab", words) as context:
                return context.command.invoke(context)
        finally:
            sys.stdout.flush()  # detects a closed pipe here and not at shutdown
    except Exit as ended:
        return ended.exit_code
    except TyperException as error:
        if sentence := describe_bounds(error):
            return print_error(f"oss-lab: {sentence}", status=1)
        return print_error(explain(error, words), status=error.exit_code)
    except BrokenPipeError:
        return discard_output()
    except KeyboardInterrupt:
        return 130
    except LabError as error:
        return print_error(f"oss-lab: {error}", status=1)
    except json.JSONDecodeError as error:
        return print_error(f"oss-lab: the input is not JSON: {error}", status=1)
    except UnicodeDecodeError as error:
        return print_error(f"oss-lab: the input is not UTF-8 text: {error}", status=1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        return print_error(f"oss-lab: {where}{error.strerror or error}", status=1)


def describe_bounds(error: TyperException) -> str | None:
    """Describe a number that is out of an option's bounds; None for any other error."""
    found = getattr(error.__cause__, "errors", lambda: [{}])()[0]  # pydantic's
    bounds = found.get("ctx", {})
    bound = str(bounds.get("ge", bounds.get("le"))).removesuffix(".0")
    limit = f"{bound} or more" if "ge" in bounds else f"at most {bound}"
    option = getattr(error, "param", None)
    if option is None or not bounds.keys() & {"ge", "le"}:
        return None
    return f"{option.opts[0]} is {found['input']}; it must be {limit}"


def explain(error: TyperException, words: Sequence[str]) -> str:
    """Describe a usage error: the command, what is wrong, and where to read more."""
    context = getattr(error, "ctx", None)  # missing if an option has no value
    command = context.command_path if context else " ".join(["oss-lab", *words[:1]])
    text = error.format_message().replace("Value error, ", "").replace("\n\t", " ").rstrip(".")
    if errors := getattr(error.__cause__, "errors", None):  # pydantic calls the value Input
        text = text.replace("Input should", f"{errors()[0]['input']!r} should")
    return f"{command}: {text} (see {command} --help)"


def print_error(line: str, *, status: int) -> int:
    """Print exactly one line on stderr, with control characters escaped; return the status."""
    line = " ".join(line.splitlines())
    if sys.stderr is not None:  # if it is closed, print would write to stdout
        shown = "".join(c if c.isprintable() else spell(c) for c in line)
        print(shown, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

"""`oss-lab`: finds the command and turns a person's mistakes into one line each.

A command is a module beside this one with `add(commands)`, which registers its parser and sets
`run`. Heavy imports belong inside `run`: `oss-lab --help` loads no torch. Exit status: 0, 1 for
something that cannot be used, 2 for a usage error, 130 after Ctrl-C, 141 for a closed pipe. What is
not a person's mistake keeps its traceback.
"""

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

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

COMMANDS = (
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


class UsageError(Exception):
    """The command line itself cannot be understood; the message is one line."""


class OneLineParser(argparse.ArgumentParser):
    """argparse, but a usage error is one line and not preceded by the usage text."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message} (see {self.prog} --help)")


def build_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="oss-lab", description="A workbench for learning how OpenAI's gpt-oss models work."
    )
    parser.add_argument("--version", action="version", version=f"oss-lab {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for module in COMMANDS:
        module.add(commands)
    missing = f"name a command: {', '.join(commands.choices)}"
    parser.set_defaults(run=lambda _: parser.error(missing))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status; `--help` and `--version` exit themselves."""
    if sys.stdout is None:  # so Python calls a closed one, as after `>&-`
        return complain("oss-lab: standard output is closed; give it a file or a pipe", status=1)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name or an answer that it cannot hold
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            arguments = build_parser().parse_args(argv)
            status: int = arguments.run(arguments)
        finally:
            sys.stdout.flush()  # so that a closed pipe is noticed here and not at shutdown
        return status
    except UsageError as error:
        return complain(str(error), status=2)
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


def complain(sentence: str, *, status: int) -> int:
    """Prints exactly one line on stderr, whatever a name that came from outside holds."""
    line = " ".join(sentence.splitlines())
    if sys.stderr is not None:  # print would take stdout for a closed one
        print("".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in line), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())

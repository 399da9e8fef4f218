"""Arguments and options that several commands share, with their bounds and help texts."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from oss_lab.checkpoint.plan import Dtype
from oss_lab.errors import LabError
from oss_lab.harmony.messages import Effort


def require_budget(number: float) -> float:
    """Raise LabError if --budget is not a positive number."""
    if not 0 < number < math.inf:
        raise LabError(f"--budget is {number:g}; it must be a number above 0")
    return number


def read_standard_input() -> str:
    """All of standard input.

    Raises:
        LabError: it is closed, or not UTF-8.
    """
    if sys.stdin is None:  # as after `<&-`
        raise LabError("standard input is closed: give the text as an argument, or pipe it in")
    try:
        text = sys.stdin.read()
        text.encode()  # Python may have kept other bytes as surrogates
    except UnicodeError:
        raise LabError("standard input is not UTF-8; convert it, for example with iconv") from None
    return text


def read_text(given: str, name: str) -> str:
    """The given text, or standard input for `-`, without its last newline.

    Raises:
        LabError: there is no text.
    """
    text = read_standard_input().removesuffix("\n") if given == "-" else given
    if not text.strip():
        where = "standard input" if given == "-" else name
        raise LabError(f"{where} is empty; give a question")
    return text


def has_error_terminal() -> bool:
    """Whether standard error is a terminal, where progress is shown. It may also be closed."""
    return sys.stderr is not None and sys.stderr.isatty()


@contextmanager
def announce_replacement(out: Path) -> Iterator[None]:
    """Say on stderr if the block replaced a file; every command with an output file does."""
    existed = out.exists()
    yield
    if existed:
        print(f"replaced {out}", file=sys.stderr)


Checkpoint = Annotated[
    str, Argument(metavar="CHECKPOINT", help="nano, 20b, 120b, a Hub id or a checkpoint folder")
]
Download = Annotated[bool, Option("--download", help="download the model if it is missing")]
AskedEffort = Annotated[
    Effort | None,
    Option("--effort", help="how much to think (default: high for nano, else medium)"),
]
Instructions = Annotated[str | None, Option(help="text of the developer message")]
MaxTokens = Annotated[int, Option(min=1, help="maximum tokens per reply")]
Seed = Annotated[int, Option(min=0, max=2**63 - 1, help="seed of the random numbers")]
Precision = Annotated[Dtype, Option("--dtype", help="precision to compute in")]
Threads = Annotated[
    int | None,
    Option(min=1, max=1024, help="CPU threads (default: PyTorch's; for train, all)"),
]
Budget = Annotated[float, Option(callback=require_budget, help="maximum size of the traces in GiB")]
AsJson = Annotated[bool, Option("--json", help="print JSON")]

"""Arguments and options that several commands share, with their bounds and help texts."""

import math
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


Checkpoint = Annotated[
    str, Argument(metavar="CHECKPOINT", help="nano, 20b, 120b or a checkpoint folder")
]
Download = Annotated[bool, Option("--download", help="download 20b or 120b if it is missing")]
AskedEffort = Annotated[
    Effort | None,
    Option("--effort", help="how much to think (default: high for nano, else medium)"),
]
Instructions = Annotated[str | None, Option(help="text of the developer message")]
Calculator = Annotated[bool, Option("--calculator", help="offer the model a calculator tool")]
MaxTokens = Annotated[int, Option(min=1, help="maximum tokens per reply")]
Seed = Annotated[int, Option(min=0, max=2**63 - 1, help="seed of the random numbers")]
Precision = Annotated[Dtype, Option("--dtype", help="precision to compute in")]
Threads = Annotated[
    int | None,
    Option(min=1, max=1024, help="CPU threads (default: PyTorch's; for train, all)"),
]
Budget = Annotated[float, Option(callback=require_budget, help="maximum size of the traces in GiB")]
AsJson = Annotated[bool, Option("--json", help="print JSON")]

"""Arguments and options that several commands share, each with its bounds and its help."""

import math
from typing import Annotated

from typer import Argument, Option

from oss_lab.checkpoint.plan import Dtype
from oss_lab.errors import LabError
from oss_lab.harmony.messages import Effort


def require_budget(number: float) -> float:
    if not 0 < number < math.inf:
        raise LabError(f"--budget is {number:g}; it must be a number above 0")
    return number


Checkpoint = Annotated[
    str, Argument(metavar="CHECKPOINT", help="nano, 20b, 120b or a checkpoint folder")
]
Download = Annotated[bool, Option("--download", help="fetch 20b or 120b if need be")]
AskedEffort = Annotated[
    Effort | None, Option("--effort", help="how much to think (default: medium; nano's is high)")
]
Instructions = Annotated[str | None, Option(help="what the developer message says")]
Calculator = Annotated[bool, Option("--calculator", help="declare a calculator")]
MaxTokens = Annotated[int, Option(min=1, help="maximum tokens per reply")]
Seed = Annotated[int, Option(min=0, max=2**63 - 1, help="the same seed gives the same replies")]
Precision = Annotated[Dtype, Option("--dtype", help="precision to compute in")]
Threads = Annotated[
    int | None,
    Option(min=1, max=1024, help="CPU threads (default: torch's choice; for train, all)"),
]
Budget = Annotated[float, Option(callback=require_budget, help="maximum GiB to write")]
AsJson = Annotated[bool, Option("--json", help="print JSON")]

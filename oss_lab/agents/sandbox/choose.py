"""Which sandbox is used: the first that starts, or none, and then only on explicit request."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from oss_lab.agents.sandbox import bare, bubblewrap, sandlock
from oss_lab.agents.sandbox.data_folder import DataFolder
from oss_lab.agents.sandbox.limits import Limits
from oss_lab.agents.sandbox.process import CannotStart, Process, start_in_own_thread
from oss_lab.agents.sandbox.worker import Worker
from oss_lab.errors import LabError, explain_unknown

SANDBOXES: dict[str, ModuleType] = {"sandlock": sandlock, "bubblewrap": bubblewrap}
UNSAFE = "unsafe: none"


@dataclass(frozen=True)
class Choice:
    """A sandbox that works here.

    Attributes:
        name: "sandlock", "bubblewrap" or "unsafe: none".
        start: starts the process of a worker.
    """

    name: str
    start: Callable[[DataFolder], Process]

    def start_worker(self, data: DataFolder, limits: Limits) -> Worker:
        """Start a worker in it. Raises CannotStart."""
        process = start_in_own_thread(lambda: self.start(data))
        return Worker(process, data, limits, lock=self.name != UNSAFE)


def choose(
    data: DataFolder, limits: Limits, use: str | None, *, unsafe: bool
) -> tuple[Choice, Worker]:
    """The first sandbox whose worker starts, with this worker. LabError if there is none."""
    if use is not None and use not in (known := (*SANDBOXES, UNSAFE)):
        raise LabError(explain_unknown("sandbox", use, known))
    if use == UNSAFE and not unsafe:
        raise LabError(
            f"the sandbox {UNSAFE!r} needs unsafe=True as well: the code can do what you can"
        )
    reasons = []
    for choice in candidates(use, unsafe=unsafe):
        module = SANDBOXES.get(choice.name)
        reason = module.find_obstacle() if module is not None else None
        if reason is None:
            try:
                return choice, choice.start_worker(data, limits)
            except CannotStart as error:
                reason = str(error)
        reasons.append(f"{choice.name}: {reason}")
    raise LabError(
        f"the Python tool found no sandbox that works here ({'; '.join(reasons)}); use it on Linux "
        "with `pip install 'oss-lab[sandbox]'`, or pass unsafe=True to run the model's code with "
        "your own rights"
    )


def candidates(use: str | None, *, unsafe: bool) -> list[Choice]:
    """What to try, in this order. Without a sandbox comes last, and only with `unsafe`."""
    found = [
        Choice(name, module.start) for name, module in SANDBOXES.items() if use in (None, name)
    ]
    if unsafe and use in (None, UNSAFE):
        found.append(Choice(UNSAFE, bare.start))
    return found

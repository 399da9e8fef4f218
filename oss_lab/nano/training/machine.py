"""What a run was computed on: `machine.json`, written when the run begins.

Two machines give the same losses bit for bit only where torch, the instruction set that it uses and
the processor are the same: the matrix products of the linear algebra libraries differ with all
three. The number of threads does not matter, and neither does Python.
"""

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from oss_kernels.bench.record import cpu_name

from oss_lab.nano.training.records import fields, read_text

MACHINE = "machine.json"


@dataclass(frozen=True)
class Machine:
    """Versions and hardware.

    Attributes:
        cpu: the processor's name, as the operating system gives it.
        threads: how many worked on groups side by side.
        capability: the instruction set that torch uses, such as AVX2 or AVX512.
    """

    torch: str
    python: str
    cpu: str
    threads: int
    capability: str

    @property
    def sentence(self) -> str:
        threads = f"{self.threads} thread" + "s" * (self.threads > 1)
        return f"torch {self.torch}, {self.capability}, {self.cpu}, {threads}, Python {self.python}"

    def computes_like(self, other: "Machine") -> bool:
        """Whether the same losses, bit for bit, are promised."""
        return (self.torch, self.cpu, self.capability) == (other.torch, other.cpu, other.capability)


def this_machine(threads: int) -> Machine:
    """What computes here, with this many threads."""
    return Machine(
        torch=torch.__version__,
        python=platform.python_version(),
        cpu=cpu_name(),
        threads=threads,
        capability=torch.backends.cpu.get_cpu_capability(),
    )


def keep_machine(folder: Path, threads: int) -> None:
    """Write `machine.json`."""
    text = json.dumps(asdict(this_machine(threads)), indent=2) + "\n"
    (folder / MACHINE).write_text(text, encoding="utf-8")


def read_machine(folder: Path) -> Machine:
    """What `keep_machine` wrote.

    Raises:
        LabError: it is missing or of another version.
    """
    file = folder / MACHINE
    return Machine(**fields(Machine, read_text(file), str(file)))

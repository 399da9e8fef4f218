"""The machine that a run was computed on: `machine.json`, written when the run starts.

Two machines give the same losses bit for bit only if their torch version, processor and instruction
set are the same, because matrix products depend on all three. The number of threads and the Python
version do not matter.
"""

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from oss_kernels.bench.record import find_cpu_name

from oss_lab.nano.training.records import parse_fields, read_text

MACHINE = "machine.json"


@dataclass(frozen=True)
class Machine:
    """Versions and hardware.

    Attributes:
        cpu: the processor's name, as the operating system gives it.
        threads: how many threads processed groups in parallel.
        capability: the instruction set that torch uses, such as AVX2 or AVX512.
    """

    torch: str
    python: str
    cpu: str
    threads: int
    capability: str

    @property
    def description(self) -> str:
        threads = f"{self.threads} thread" + "s" * (self.threads > 1)
        return f"torch {self.torch}, {self.capability}, {self.cpu}, {threads}, Python {self.python}"

    def computes_like(self, other: "Machine") -> bool:
        """Whether both machines should compute the same losses, bit for bit."""
        return (self.torch, self.cpu, self.capability) == (other.torch, other.cpu, other.capability)


def describe_machine(threads: int) -> Machine:
    """This machine, with this many threads."""
    return Machine(
        torch=torch.__version__,
        python=platform.python_version(),
        cpu=find_cpu_name(),
        threads=threads,
        capability=torch.backends.cpu.get_cpu_capability(),
    )


def write_machine(folder: Path, threads: int) -> None:
    """Write `machine.json`."""
    text = json.dumps(asdict(describe_machine(threads)), indent=2) + "\n"
    (folder / MACHINE).write_text(text, encoding="utf-8")


def read_machine(folder: Path) -> Machine:
    """The machine that `write_machine` wrote.

    Raises:
        LabError: `machine.json` is missing or of another version.
    """
    file = folder / MACHINE
    return Machine(**parse_fields(Machine, read_text(file), str(file)))

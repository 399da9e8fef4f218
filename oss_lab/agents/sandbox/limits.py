"""What one Python process may use. One process is all there is: it cannot start another."""

from dataclasses import dataclass, fields

from oss_lab.errors import LabError

MIB = 1 << 20
# Python starts and NumPy can be imported in this much address space; pandas needs more.
SMALLEST = {"memory": 128 * MIB, "open_files": 16, "output": 100, "threads": 1}
LARGEST = {"output": 1_000_000, "seconds": 86_400}


@dataclass(frozen=True)
class Limits:
    """Limits of a sandbox; sizes are in bytes.

    Attributes:
        seconds: of one call; then the process is killed and started again.
        memory: address space of the process, which is more than it fills.
        disk: of the files in /mnt/data, and of each of them.
        files: files and folders in /mnt/data.
        threads: of the process.
        open_files: open at the same time.
        output: characters of one call that are kept; the rest is counted.
    """

    seconds: float = 120.0
    memory: int = 1024 * MIB
    disk: int = 256 * MIB
    files: int = 10_000
    threads: int = 64
    open_files: int = 128
    output: int = 20_000

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            whole = int if field.name != "seconds" else (int, float)
            if isinstance(value, bool) or not isinstance(value, whole) or not value > 0:
                raise LabError(f"{field.name} must be a number above 0, got {value!r}")
            if value < SMALLEST.get(field.name, 0):
                least = SMALLEST[field.name]
                raise LabError(f"{field.name} must be at least {least:,}, got {value:,}")
            if value > LARGEST.get(field.name, value):
                most = LARGEST[field.name]
                raise LabError(f"{field.name} must be at most {most:,}, got {value:,}")

"""Limits that the kernel does not enforce for one process, checked from outside while code runs.

Threads, the size of the data folder and the number of its files. Deleted files that the process
still holds open count as well. A check every `EVERY` seconds leaves room to exceed a limit for that
long: the file size limit and the memory limit, which the kernel enforces, bound what fits into it.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from oss_lab.agents.sandbox.data_folder import DataFolder
from oss_lab.agents.sandbox.limits import Limits

EVERY = 0.05  # seconds


def find_excess(proc: Path | None, data: DataFolder, limits: Limits) -> str | None:
    """The limit that is exceeded, as a clause; None if there is none."""
    if proc is not None and (threads := count_threads(proc)) > limits.threads:
        return f"more than {limits.threads:,} threads ran ({threads:,})"
    held = sum(sizes_of_deleted_files(proc)) if proc is not None else 0
    return data.find_excess(limits.disk, limits.files, held)


def count_threads(proc: Path) -> int:
    with suppress(OSError):
        for line in (proc / "status").read_text().splitlines():
            if line.startswith("Threads:"):
                return int(line.split()[1])
    return 0


def sizes_of_deleted_files(proc: Path) -> Iterator[int]:
    """Bytes on disk of files without a name that the process holds open."""
    with suppress(OSError):
        for descriptor in os.listdir(proc / "fd"):
            with suppress(OSError):
                found = (proc / "fd" / descriptor).stat()
                if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
                    yield found.st_blocks * 512

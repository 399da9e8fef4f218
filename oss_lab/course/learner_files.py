"""Read and write a learner's files: one writer at a time, and one sentence for what goes wrong.

Two notebooks may write at once. Each reads a file, changes one entry and writes it, so without
`one_writer` the later one would undo the change of the other.
"""

import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from oss_lab.checkpoint.atomic import write_text
from oss_lab.errors import LabError

LOCK = ".my_files.lock"
WAIT, STALE = 0.02, 10.0  # seconds between attempts, and from which a lock is a killed writer's


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, for a read and a write that belong together.

    Raises:
        LabError: nothing can be written to the folder.
    """
    lock, began = folder / LOCK, time.monotonic()
    while not take(lock):
        if time.monotonic() - began > 1.5 * STALE:
            raise LabError(f"another notebook is writing to {folder}; if none is, delete {lock}")
        time.sleep(WAIT)
    try:
        yield
    finally:
        shutil.rmtree(lock, ignore_errors=True)


def take(lock: Path) -> bool:
    """Make the folder that is the lock; False if another writer has it."""
    try:
        lock.mkdir()
    except FileExistsError:
        try:
            age = time.time() - lock.stat().st_mtime
        except FileNotFoundError:  # released since
            return False
        if abs(age) > STALE:
            shutil.rmtree(lock, ignore_errors=True)
        return False
    except OSError as error:
        raise LabError(
            f"your files cannot be saved in {lock.parent}: {error.strerror}; open the notebooks in"
            " a folder that you can write to, or name one with OSS_LAB_COURSE"
        ) from None
    return True


def read_file(file: Path) -> str:
    """The text of a file, "" if there is none.

    Raises:
        LabError: it cannot be read, or is not text.
    """
    try:
        return file.read_text("utf-8") if file.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise LabError(
            f"{file} cannot be read: {reason}; correct it, or {advise_reset(file.parent)}"
        ) from None


def advise_reset(folder: Path) -> str:
    name = shlex.quote(str(folder))
    return f"start again with `oss-lab course reset {name}`, which keeps a backup"


def write_file(file: Path, text: str) -> None:
    """Replace a file atomically.

    Raises:
        LabError: it cannot be written.
    """
    try:
        write_text(file, text)
    except OSError as error:
        raise LabError(f"{file} cannot be written: {error.strerror}") from None

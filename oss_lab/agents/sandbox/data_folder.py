"""The host folder that the model's code sees as /mnt/data. It lasts as long as the sandbox.

The code chooses names, links and depth, so nothing here follows a link that the code made, opens
anything but a regular file, or recurses.
"""

import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from oss_lab.errors import LabError

NAME = "/mnt/data"
MIB = 1 << 20
DEEPEST = 100  # folders within each other; a long path would take the parent long to follow


class DataFolder:
    """A private temporary folder."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="oss-lab-data-")).resolve()

    def files(self) -> dict[str, int]:
        """Sizes in bytes of the regular files, by path relative to the folder, sorted.

        Files whose names are not text are left out.
        """
        found = {}
        for entry in walk(self.path, lambda folder: None):
            with suppress(FileNotFoundError, UnicodeEncodeError):
                if entry.is_file(follow_symlinks=False):
                    name = Path(entry.path).relative_to(self.path).as_posix()
                    name.encode()
                    found[name] = entry.stat(follow_symlinks=False).st_size
        return dict(sorted(found.items()))

    def read(self, name: str) -> bytes:
        """The content of one of `files()`. LabError for anything but a regular file."""
        if name not in self.files():
            raise LabError(f"there is no file {name!r} in {NAME}")
        with os.fdopen(open_below(self.path, name), "rb") as file:
            return file.read()

    def write(self, name: str, content: bytes) -> Path:
        """Create or replace a file directly in the folder. LabError for any other place."""
        if name in ("", ".", "..") or "/" in name or "\\" in name:
            raise LabError(f"expected a file name for {NAME}, got {name!r}")
        handle, temporary = tempfile.mkstemp(dir=self.path)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        path = self.path / name
        os.replace(temporary, path)  # replaces a link instead of following it
        return path

    def find_excess(self, size: int, count: int, held: int = 0) -> str | None:
        """How it is larger than `size` bytes or `count` entries, as a clause; None if it is not.

        Args:
            held: bytes to add, of deleted files that are still open.
        """
        unreadable: list[str] = []
        bytes_on_disk = held
        for number, entry in enumerate(walk(self.path, unreadable.append), start=1):
            bytes_on_disk += size_on_disk(entry)
            if number > count:
                return f"{NAME} held more than {count:,} files and folders"
        if unreadable:  # its contents would not be counted
            return f"{NAME} held a folder that is nested too deep or that cannot be read"
        if bytes_on_disk > size:
            held_mib, most_mib = bytes_on_disk / MIB, size / MIB
            return f"{NAME} held {held_mib:,.1f} MiB, which is more than {most_mib:,.1f} MiB"
        return None

    def shrink(self, size: int, count: int) -> None:
        """Delete the newest files and folders in it until both limits hold again."""
        newest = sorted(self.path.iterdir(), key=lambda path: path.lstat().st_ctime_ns)
        while newest and self.find_excess(size, count):
            self.delete(newest.pop())

    def delete(self, path: Path) -> None:
        """Delete something in the folder, however deep it is nested. The process must be gone."""
        if not path.is_dir() or path.is_symlink():
            path.unlink()
            return
        folders, serial = [path], 0
        flat = Path(tempfile.mkdtemp(dir=self.path))
        while folders:
            folder = folders.pop()
            for inner in list_folders_and_delete_files(folder):
                serial += 1
                inner.rename(flat / str(serial))  # so no path grows too long
                folders.append(flat / str(serial))
            folder.rmdir()
        flat.rmdir()

    def remove(self) -> None:
        """Delete the folder. The process must have ended."""
        for path in list(self.path.iterdir()):
            self.delete(path)
        self.path.rmdir()


def walk(top: Path, skip: Callable[[str], object]) -> Iterator[os.DirEntry[str]]:
    """Every entry below a folder. Folders that are too deep or cannot be listed go to `skip`."""
    folders = [(str(top), 1)]
    while folders:
        folder, depth = folders.pop()
        if depth > DEEPEST:
            skip(folder)
            continue
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((entry.path, depth + 1))
                    yield entry
        except FileNotFoundError:  # deleted meanwhile
            continue
        except OSError:
            skip(folder)


def size_on_disk(entry: os.DirEntry[str]) -> int:
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError:  # deleted meanwhile
        return 0
    return getattr(found, "st_blocks", -(-found.st_size // 512)) * 512


def open_below(top: Path, name: str) -> int:
    """A descriptor of a regular file, opened one folder at a time without following links."""
    if os.open not in os.supports_dir_fd:  # Windows, where there is no sandbox either
        return os.open(top / name, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    *folders, last = name.split("/")
    steps = [(folder, os.O_DIRECTORY) for folder in folders] + [(last, os.O_NONBLOCK)]
    for part, flags in steps:
        try:
            inner = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | flags, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = inner
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise LabError(f"{name!r} in {NAME} is not a regular file")
    return descriptor


def list_folders_and_delete_files(folder: Path) -> list[Path]:
    folder.chmod(0o700)  # the code may have made it unreadable
    folders = []
    for path in list(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            folders.append(path)
        else:
            path.unlink()
    return folders

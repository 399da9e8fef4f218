"""Write files atomically: into a hidden folder next to the destination, then move into place."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from oss_lab.errors import LabError

if TYPE_CHECKING:
    import torch


@contextmanager
def replace_atomically(file: Path) -> Iterator[Path]:
    """Yield a path to write to; when the block ends, the file there replaces `file`.

    After an exception or a kill the old file is unchanged. A kill leaves a hidden folder next to
    the file, which the next attempt removes.
    """
    folder = partial_folder(file)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder / file.name
        (folder / file.name).replace(file)
    finally:
        shutil.rmtree(folder)


def partial_folder(file: Path) -> Path:
    """The folder in which `file` is written before it is moved into place."""
    return file.with_name(f".{file.name}.partial")


def write_text(file: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with replace_atomically(file) as partial:
        partial.write_text(text, encoding="utf-8")


def write_tensors(
    out: Path, tensors: "Mapping[str, torch.Tensor]", metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file atomically.

    Raises:
        LabError: `out` cannot be written to.
    """
    from safetensors.torch import save_file

    check_output_file(out)
    with replace_atomically(out) as partial:
        partial.touch()
        default_mode = partial.stat().st_mode
        save_file({name: x.contiguous() for name, x in tensors.items()}, partial, metadata)
        partial.chmod(default_mode)  # safetensors lets only the owner read its files


def check_output_file(out: Path, option: str = "--out") -> None:
    """Refuse an output file that cannot be written. Call this before the work, not after it."""
    if out.is_dir():
        raise LabError(f"{out} is a folder; {option} needs the name of a file")
    if out.exists() and not out.is_file():  # as root, this would replace /dev/null
        raise LabError(f"{out} is a device or a pipe, which a file would replace; choose another")
    if not out.parent.is_dir():
        raise LabError(f"{out.parent} is not a folder; create it first, or choose another {option}")
    if not os.access(out.parent, os.W_OK):
        raise LabError(f"{out.parent} is not writable; choose another {option}")


def check_output_folder(out: Path, option: str = "--out") -> None:
    """Refuse an output folder that is a file."""
    if out.exists() and not out.is_dir():
        raise LabError(f"{out} is a file; {option} needs a folder")

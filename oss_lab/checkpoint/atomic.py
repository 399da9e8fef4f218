"""Files that appear complete or not at all: written in a folder next to their place, then moved."""

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
def replacing(file: Path) -> Iterator[Path]:
    """A path to write to; what is there takes the place of `file` when the block ends.

    After an exception or a kill the old file is unchanged. What a kill leaves, a hidden folder next
    to the file, is removed by the next attempt.
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
    """Where `file` is written before it takes its place."""
    return file.with_name(f".{file.name}.partial")


def write_text(file: Path, text: str) -> None:
    """Write UTF-8 text, all of it or nothing."""
    with replacing(file) as partial:
        partial.write_text(text, encoding="utf-8")


def write_tensors(
    out: Path, tensors: "Mapping[str, torch.Tensor]", metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file, all of it or nothing.

    Raises:
        LabError: `out` cannot be written to.
    """
    from safetensors.torch import save_file

    check_out(out)
    with replacing(out) as partial:
        partial.touch()
        usual = partial.stat().st_mode
        save_file({name: x.contiguous() for name, x in tensors.items()}, partial, metadata)
        partial.chmod(usual)  # the library gives its files to their owner alone


def check_out(out: Path, option: str = "--out") -> None:
    """Refuse a place that cannot be written to; called before the work, not after it."""
    if out.is_dir():
        raise LabError(f"{out} is a folder; {option} takes the name of a file")
    if not out.parent.is_dir():
        raise LabError(f"{out.parent} is not a folder; make it first, or choose another {option}")
    if not os.access(out.parent, os.W_OK):
        raise LabError(f"{out.parent} cannot be written to; choose another {option}")

"""Writing safetensors files that appear complete or not at all."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from oss_lab.errors import LabError

if TYPE_CHECKING:
    import torch


def write_tensors(
    out: Path, tensors: "Mapping[str, torch.Tensor]", metadata: dict[str, str] | None = None
) -> None:
    """Write beside `out`, then take its place: a reader never sees half a file.

    Raises:
        LabError: `out` cannot be written to.
    """
    from safetensors.torch import save_file

    check_out(out)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
        beside, usual = Path(folder) / out.name, Path(folder) / "usual"
        save_file({name: x.contiguous() for name, x in tensors.items()}, beside, metadata)
        usual.touch()
        shutil.copymode(usual, beside)  # the library gives its files to their owner alone
        beside.replace(out)


def check_out(out: Path) -> None:
    """Refuse a place that cannot be written to; called before the work, not after it."""
    if out.is_dir():
        raise LabError(f"{out} is a folder; --out takes the name of a file")
    if not out.parent.is_dir():
        raise LabError(f"{out.parent} is no folder; make it first, or choose another --out")
    if not os.access(out.parent, os.W_OK):
        raise LabError(f"{out.parent} cannot be written to; choose another --out")

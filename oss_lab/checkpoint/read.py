"""Opening a checkpoint: the folder is examined whole, then its tensors are mapped into memory.

Both published layouts are read, in one file or in shards, with or without an index, and handed
out under the original names; Hugging Face's q, k and v are joined on the way. Nothing is converted
and nothing repaired: a folder with any defect is refused. How tensors become a model is in
`load.py`; what is examined, in `examine.py`.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from oss_lab.checkpoint.defects import Defect, Examination
from oss_lab.checkpoint.examine import CONFIG, examine
from oss_lab.checkpoint.header import Located
from oss_lab.checkpoint.layouts import Layout, tensor_table
from oss_lab.config import ModelConfig
from oss_lab.errors import CheckpointError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Checkpoint:
    """A folder in which nothing is wrong.

    Attributes:
        folder: the one that was read, which may be the `original/` of the one that was named.
        located: every tensor as stored, under its name in `layout`.
    """

    folder: Path
    layout: Layout
    config: ModelConfig
    located: Mapping[str, Located]

    def tensors(self) -> Iterator[tuple[str, "torch.Tensor"]]:
        """Yield (original name, tensor) in the order of the tensor table.

        The tensors are views of the mapped files, BF16 or U8, read from disk when first used; only
        a joined qkv is a copy. Do not write into them.
        """
        import torch
        from safetensors import safe_open

        check_path(self.folder)
        with ExitStack() as stack:
            files = {
                file: stack.enter_context(safe_open(file, framework="pt"))
                for file in {located.file for located in self.located.values()}
            }
            for spec in tensor_table(self.config):
                names = [stored.name for stored in spec.stored(self.layout)]
                parts = [files[self.located[name].file].get_tensor(name) for name in names]
                yield spec.name, parts[0] if len(parts) == 1 else torch.cat(parts)


class DefectiveCheckpointError(CheckpointError):
    """A folder that cannot be trusted; the message is its first defect.

    Attributes:
        defects: all of them, in the order of `defects.KINDS`.
    """

    def __init__(self, folder: Path, defects: list[Defect], see: str = "oss-lab inspect --json"):
        more = f" (and {len(defects) - 1} more: {see})" if len(defects) > 1 else ""
        super().__init__(f"{defects[0].sentence}{more}")
        self.folder = folder
        self.defects = tuple(defects)


def open_checkpoint(folder: str | Path) -> Checkpoint:
    """Examine a checkpoint folder and return it ready to be read.

    Args:
        folder: a path, or "nano" for the checkpoint shipped with this package. A folder without
            weights of its own is entered at its `original/`; where both are there, the folder's
            own (Hugging Face's) are read and `original/` is not looked at.

    Raises:
        DefectiveCheckpointError: with every defect; none of its weights was used.
    """
    found = examine(find_folder(folder))
    return trusted(found)


def trusted(found: Examination, see: str = "oss-lab inspect --json") -> Checkpoint:
    """Return the checkpoint of an examination that found nothing wrong, or raise its defects."""
    if found.defects or found.config is None:
        raise DefectiveCheckpointError(found.folder, found.defects, see)
    return Checkpoint(found.folder, found.layout, found.config, found.tensors)


def check_path(path: Path) -> None:
    """Refuse a path that the safetensors library cannot open."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        what = "is not UTF-8, which the safetensors library needs; rename it"
        raise CheckpointError(f"the path {path} {what}") from None


def find_folder(name: str | Path) -> Path:
    """Return the folder to read for `name`; it may turn out not to exist, or to be defective."""
    if name == "nano":
        return Path(str(resources.files("oss_lab") / "assets" / "nano"))
    folder = Path(os.path.expanduser(name))  # Path's own raises where there is no such user
    original = folder / "original"
    has_weights = any(folder.glob("*.safetensors*"))
    return original if not has_weights and (original / CONFIG).exists() else folder

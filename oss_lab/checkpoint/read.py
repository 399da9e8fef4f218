"""Open a checkpoint: examine the complete folder, then map its tensors into memory.

Both published layouts can be read, in one file or in shards, with or without an index. Tensors have
their original names; Hugging Face's q, k and v are concatenated. Nothing is converted or repaired:
a folder with any defect is refused. `load.py` makes a model from the tensors; `examine.py` does the
checks.
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
from oss_lab.checkpoint.header import TensorLocation
from oss_lab.checkpoint.layouts import ExpertStorage, Layout, tensor_table
from oss_lab.checkpoint.names import (
    CACHED,
    check_spelling,
    describe_absent,
    find_repository,
    find_snapshot,
    locate_cache,
)
from oss_lab.config import ModelConfig
from oss_lab.errors import CheckpointError, LabError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder without defects.

    Attributes:
        folder: the folder that was read; may be the `original/` inside the folder you named.
        located: every tensor as stored, under its published name in `layout`.
        experts: how the experts' weights are stored.
    """

    folder: Path
    layout: Layout
    config: ModelConfig
    located: Mapping[str, TensorLocation]
    experts: ExpertStorage = "mxfp4"

    def tensors(self) -> Iterator[tuple[str, "torch.Tensor"]]:
        """Yield (original name, tensor) in the order of the tensor table.

        The tensors are views of the mapped files, BF16 or U8, read from disk when first used; only
        a concatenated qkv is a copy. Dense experts are [expert rows columns], in Hugging Face's
        layout a transposed view. Do not write to them.
        """
        import torch
        from safetensors import safe_open

        check_path(self.folder)
        with ExitStack() as stack:
            files = {
                file: stack.enter_context(safe_open(file, framework="pt"))
                for file in {located.file for located in self.located.values()}
            }
            for spec in tensor_table(self.config, self.experts):
                places = [self.located[stored.name] for stored in spec.stored(self.layout)]
                parts = [files[place.file].get_tensor(place.name) for place in places]
                tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
                yield spec.name, tensor.mT if spec.is_transposed(self.layout) else tensor


class DefectiveCheckpointError(CheckpointError):
    """A checkpoint folder with defects; the message is the first one.

    Attributes:
        defects: all defects, in the order of `defects.KINDS`.
    """

    def __init__(self, folder: Path, defects: list[Defect], see: str = "oss-lab inspect --json"):
        count = len(defects) - 1
        more = f" (and {count} more defect{'s' if count > 1 else ''}; see {see})" if count else ""
        super().__init__(f"{defects[0].sentence}{more}")
        self.folder = folder
        self.defects = tuple(defects)


def open_checkpoint(folder: str | Path, *, any_float: bool = False) -> Checkpoint:
    """Examine a checkpoint folder and open it for reading.

    Args:
        folder: a path or a name, as for `find_folder`. In a folder without weights, the subfolder
            `original/` is read. In a folder with both, the folder's weights (Hugging Face's) are
            read and `original/` is ignored.
        any_float: accept F16 and F32 instead of BF16, as `oss-lab convert` does.

    Raises:
        DefectiveCheckpointError: the folder has defects; the error lists all of them. No weight
            was used.
    """
    found = examine(find_folder(folder), any_float=any_float)
    return to_checkpoint(found)


def to_checkpoint(found: Examination, see: str = "oss-lab inspect --json") -> Checkpoint:
    """Return the checkpoint of an examination without defects, or raise an error with them."""
    if found.defects or found.config is None:
        raise DefectiveCheckpointError(found.folder, found.defects, see)
    return Checkpoint(found.folder, found.layout, found.config, found.tensors, found.experts)


def check_path(path: Path) -> None:
    """Refuse a path that the safetensors library cannot open."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        what = "is not valid UTF-8, which the safetensors library needs; rename it"
        raise CheckpointError(f"the path {path} {what}") from None


def find_folder(name: str | Path) -> Path:
    """Return the folder to read for `name`. It may be defective; a path may not exist.

    Args:
        name: "nano", the name or Hub id of a downloaded model (`20b`, `openai/gpt-oss-20b`), a
            path, or a repository's folder in the Hub's cache.

    Raises:
        LabError: the model was not downloaded, or the name is not one.
    """
    if name == "nano":
        return Path(str(resources.files("oss_lab") / "assets" / "nano"))
    check_spelling(str(name))
    folder = Path(os.path.expanduser(name))  # Path.expanduser raises for an unknown user
    if repository := find_repository(str(name)):
        snapshot = find_snapshot(locate_cache(repository))
        if snapshot is None:
            raise LabError(describe_absent(repository, str(name)))
        folder = snapshot
    else:
        cache = folder.parent if folder.name == "snapshots" else folder
        if cache.name.startswith(CACHED):
            folder = find_snapshot(cache) or folder
    original = folder / "original"
    has_weights = any(folder.glob("*.safetensors*"))
    return original if not has_weights and (original / CONFIG).exists() else folder

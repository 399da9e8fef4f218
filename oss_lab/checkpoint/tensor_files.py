"""Write safetensors files piece by piece, in any order, without holding a file in memory.

The headers are written first, since the shapes are known. Each piece then goes to its place. The
bytes are those that the safetensors library writes: tensors by dtype, largest first, then by name.
"""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from oss_lab.checkpoint.layouts import ITEM_BYTES, StoredTensor
from oss_lab.errors import CheckpointError

if TYPE_CHECKING:
    import torch


@dataclass
class _Place:
    """Where a tensor goes, and how many of its bytes are still missing."""

    tensor: StoredTensor
    file: BufferedRandom
    start: int
    missing: int


class TensorFiles:
    """Open safetensors files in a folder: file name -> its tensors. A context manager."""

    def __init__(
        self,
        folder: Path,
        files: Mapping[str, Sequence[StoredTensor]],
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self._metadata = {"format": "pt", **(metadata or {})}
        self._stack = ExitStack()
        self._places: dict[str, _Place] = {}
        for name, tensors in files.items():
            stream = self._stack.enter_context((folder / name).open("w+b"))
            self._begin(stream, sorted(tensors, key=lambda x: (-ITEM_BYTES[x.dtype], x.name)))

    def _begin(self, stream: BufferedRandom, tensors: Sequence[StoredTensor]) -> None:
        """Write the header and reserve the room."""
        header: dict[str, object] = {"__metadata__": self._metadata}
        end = 0
        for tensor in tensors:
            begin, end = end, end + tensor.nbytes
            header[tensor.name] = {
                "dtype": tensor.dtype,
                "shape": tensor.shape,
                "data_offsets": [begin, end],
            }
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        stream.write(len(text).to_bytes(8, "little") + text)
        start = 8 + len(text)
        stream.truncate(start + end)
        for tensor in tensors:
            self._places[tensor.name] = _Place(tensor, stream, start, tensor.nbytes)
            start += tensor.nbytes

    def write(self, name: str, first: int, rows: "torch.Tensor") -> None:
        """Write rows of a tensor, from row `first`, in the dtype of the file.

        Raises:
            CheckpointError: no file has this tensor, or the rows do not fit into it.
        """
        import torch

        place = self._places.get(name)
        if place is None:
            raise CheckpointError(f"tensor {name} does not belong to this configuration")
        shape, dtype = place.tensor.shape, place.tensor.dtype
        wanted = {"BF16": torch.bfloat16, "U8": torch.uint8}[dtype]
        if rows.dtype != wanted:
            raise CheckpointError(f"tensor {name} is {rows.dtype}, not {wanted}")
        if tuple(rows.shape[1:]) != shape[1:] or first + rows.shape[0] > shape[0]:
            raise CheckpointError(
                f"tensor {name} has rows of shape {list(rows.shape)} at {first},"
                f" which do not fit into {list(shape)}"
            )
        contents = rows.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        place.file.seek(place.start + first * math.prod(shape[1:]) * ITEM_BYTES[dtype])
        place.file.write(contents.data)
        place.missing -= contents.nbytes

    def __enter__(self) -> "TensorFiles":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._stack.close()
        for place in self._places.values() if error is None else ():
            if place.missing:
                missing = "is missing" if place.missing > 0 else "was written twice"
                raise CheckpointError(f"tensor {place.tensor.name} {missing}")

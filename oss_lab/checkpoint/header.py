"""Read and check the header of a safetensors file without reading any weights.

Such a file is eight bytes of header length, a JSON header, then the tensors' bytes in sequence
without gaps. The safetensors library checks most of this too, but accepts a repeated name and does
not name the tensor at fault. Source: the description of the format in huggingface/safetensors.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oss_lab.checkpoint.fields import RepeatedNameError, make_printable, parse_object

LARGEST_HEADER = 100_000_000  # the limit of the safetensors library
# Bits per element, for every dtype of safetensors 0.8.
DTYPE_BITS = (
    dict.fromkeys(("F64", "I64", "U64", "C64"), 64)
    | dict.fromkeys(("F32", "I32", "U32"), 32)
    | dict.fromkeys(("F16", "BF16", "I16", "U16"), 16)
    | dict.fromkeys(
        ("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E5M2FNUZ", "F8_E4M3FNUZ"), 8
    )
    | {"F6_E2M3": 6, "F6_E3M2": 6, "F4": 4}
)


@dataclass(frozen=True)
class TensorLocation:
    """Where a tensor is stored: bytes [start, end) of `file`, counted from its beginning.

    `name` is its name in the file.
    """

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def nbytes(self) -> int:
        """The size of the tensor in the file."""
        return self.end - self.start


class HeaderError(ValueError):
    """Why a file is not an intact safetensors file.

    Attributes:
        tensor: the tensor at fault, if it is a single one.
        described: the tensors of the header, if the header is intact and only their bytes are not.
    """

    def __init__(
        self,
        what: str,
        tensor: str | None = None,
        described: dict[str, TensorLocation] | None = None,
    ) -> None:
        super().__init__(what)
        self.tensor = tensor
        self.described = described or {}


class RepeatedTensorError(HeaderError):
    """A name appears twice in one header."""


def read_header(file: Path) -> dict[str, TensorLocation]:
    """Return the location of every tensor in a file, in byte order.

    Raises:
        HeaderError: what is wrong. The text continues a sentence that starts with the file's name.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            prefix = stream.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if length > LARGEST_HEADER:
                raise HeaderError(
                    f"claims a header of {length:,} bytes: it is not a safetensors file"
                )
            if len(prefix) < 8 or 8 + length > size:
                raise HeaderError(f"ends within its header after {size:,} bytes: it is truncated")
            entries = parse_object(stream.read(length))
    except OSError as error:
        raise HeaderError(f"cannot be read: {error.strerror}") from None
    except RepeatedNameError as error:
        raise RepeatedTensorError("appears twice in its header", error.name) from None
    except HeaderError:
        raise
    except ValueError as error:
        raise HeaderError(f"has a header that {error}") from None
    if not _is_metadata(entries.pop("__metadata__", None)):
        raise HeaderError("has __metadata__ that is not an object of strings")
    located = [_check_entry(file, 8 + length, name, entry) for name, entry in entries.items()]
    return _check_order(located, 8 + length, size)


def read_metadata(file: Path) -> dict[str, str]:
    """The metadata of a safetensors file; empty if it has none or is not such a file."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            entries = parse_object(stream.read(length)) if length <= LARGEST_HEADER else {}
    except (OSError, ValueError):
        return {}
    metadata = entries.get("__metadata__")
    return metadata if isinstance(metadata, dict) and _is_metadata(metadata) else {}


def _is_metadata(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    )


def _check_entry(file: Path, data: int, name: str, entry: Any) -> tuple[str, TensorLocation]:
    """Check the header entry of one tensor."""
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise HeaderError("has a name that is not valid Unicode", name)
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(end)]}:
            pass
        case _:
            raise HeaderError("has a malformed header entry", name)
    if not all(type(n) is int and n >= 0 for n in (*shape, start, end)) or start > end:
        raise HeaderError("has a header entry with a malformed shape or offset", name)
    bits = DTYPE_BITS.get(dtype)
    if bits is None:
        raise HeaderError(f"has a header entry of unknown dtype {make_printable(dtype)}", name)
    if math.prod(shape) * bits != (end - start) * 8:
        raise HeaderError(
            f"has {end - start:,} bytes, the wrong size for {dtype} {list(shape)}", name
        )
    return name, TensorLocation(name, file, dtype, tuple(shape), data + start, data + end)


def _check_order(
    located: list[tuple[str, TensorLocation]], begin: int, size: int
) -> dict[str, TensorLocation]:
    """Check that the tensors fill the file exactly."""
    located.sort(key=lambda item: (item[1].start, item[1].end))
    for name, tensor in located:
        if tensor.start != begin:
            raise HeaderError("overlaps the tensor before it or leaves a gap", name)
        if tensor.end > size:
            short = located[-1][1].end - size
            what = f"is cut off: the file is truncated by {short:,} bytes"
            raise HeaderError(what, name, dict(located))
        begin = tensor.end
    if begin != size:
        raise HeaderError(f"contains {size - begin:,} bytes more than its header describes")
    return dict(located)

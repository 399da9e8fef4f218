"""What a safetensors file says about itself, read and checked without touching a weight.

Such a file is eight bytes of header length, a JSON header, then the tensors' bytes one after the
other without gaps. The safetensors library checks most of this too, but not that a name occurs
once, and it stops at the first fault without naming a tensor; here every fault gets its sentence.
Source: the format's description in huggingface/safetensors.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oss_lab.checkpoint.fields import RepeatedNameError, parse_object, printable

LARGEST_HEADER = 100_000_000  # the library's own limit
# Bits an element takes, for every dtype of safetensors 0.8.
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
class Located:
    """Where a tensor lies: bytes [start, end) of `file`, counted from the file's beginning."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class HeaderError(ValueError):
    """Why a file is no intact safetensors file.

    Attributes:
        tensor: the one at fault, where it is one.
        described: the tensors of a header that is itself intact, where only their bytes are not.
    """

    def __init__(
        self, what: str, tensor: str | None = None, described: dict[str, Located] | None = None
    ) -> None:
        super().__init__(what)
        self.tensor = tensor
        self.described = described or {}


class RepeatedTensorError(HeaderError):
    """One name twice in one header."""


def read_header(file: Path) -> dict[str, Located]:
    """Return every tensor of a file in the order of its bytes.

    Raises:
        HeaderError: what is wrong, as the end of a sentence that begins with the file's name.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            prefix = stream.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if length > LARGEST_HEADER:
                raise HeaderError(f"claims a header of {length:,} bytes: it is not safetensors")
            if len(prefix) < 8 or 8 + length > size:
                raise HeaderError(f"ends within its header after {size:,} bytes: it is truncated")
            entries = parse_object(stream.read(length))
    except OSError as error:
        raise HeaderError(f"cannot be read: {error.strerror}") from None
    except RepeatedNameError as error:
        raise RepeatedTensorError("is twice in its header", error.name) from None
    except HeaderError:
        raise
    except ValueError as error:
        raise HeaderError(f"has a header that {error}") from None
    if not _is_metadata(entries.pop("__metadata__", None)):
        raise HeaderError("has __metadata__ that is not an object of strings")
    located = [_entry(file, 8 + length, name, entry) for name, entry in entries.items()]
    return _in_order(located, 8 + length, size)


def _is_metadata(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    )


def _entry(file: Path, data: int, name: str, entry: Any) -> tuple[str, Located]:
    """Check one tensor's own line of the header."""
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise HeaderError("has a name that is not Unicode", name)
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(end)]}:
            pass
        case _:
            raise HeaderError("has a malformed header entry", name)
    if not all(type(n) is int and n >= 0 for n in (*shape, start, end)) or start > end:
        raise HeaderError("has a header entry with a malformed shape or offset", name)
    bits = DTYPE_BITS.get(dtype)
    if bits is None:
        raise HeaderError(f"has a header entry of unknown dtype {printable(dtype)}", name)
    if math.prod(shape) * bits != (end - start) * 8:
        raise HeaderError(f"gives {end - start:,} bytes to {dtype} {list(shape)}", name)
    return name, Located(file, dtype, tuple(shape), data + start, data + end)


def _in_order(located: list[tuple[str, Located]], begin: int, size: int) -> dict[str, Located]:
    """Check that the tensors fill the file exactly."""
    located.sort(key=lambda item: (item[1].start, item[1].end))
    for name, tensor in located:
        if tensor.start != begin:
            raise HeaderError("overlaps or leaves a gap before it", name)
        if tensor.end > size:
            short = located[-1][1].end - size
            what = f"is cut off: the file is truncated by {short:,} bytes"
            raise HeaderError(what, name, dict(located))
        begin = tensor.end
    if begin != size:
        raise HeaderError(f"holds {size - begin:,} bytes more than its header describes")
    return dict(located)

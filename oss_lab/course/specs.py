"""What a part must return, and the sentence about a result that the model cannot use.

Each spec has `check(named, value, given)`. `named` begins the sentence ("the part router returned
result 0 "), and `given` are the part's arguments. It returns the value, or raises LabError.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, Protocol

import torch
from torch import Tensor

from oss_lab.errors import LabError, shorten, show_safely
from oss_lab.harmony import Message, TextContent

LARGEST = 2**31  # ids of any vocabulary are smaller


class Spec(Protocol):
    """What one result must be."""

    def check(self, named: str, value: Any, given: tuple[Any, ...]) -> Any: ...


@dataclass(frozen=True)
class TensorSpec:
    """A tensor without new NaN; `count` limits integers to 0 ... count - 1."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    count: int | None = None

    def check(self, named: str, value: Any, given: tuple[Any, ...]) -> Any:
        """Raises LabError also if the tensor lost the arguments' gradient."""
        expected = f"expected {describe_tensor(self.shape, self.dtype, self.device)}"
        found = is_plain(value) and (tuple(value.shape), value.dtype, value.device)
        if found != (self.shape, self.dtype, self.device):
            raise LabError(f"{named}{describe(value)}; {expected}")
        if self.count is not None:
            least, most = (int(each) for each in value.aminmax())
            if least < 0 or most >= self.count:
                wrong = least if least < 0 else most
                raise LabError(f"{named}with index {wrong}; expected 0 to {self.count - 1}")
        tensors = [each for each in given if isinstance(each, Tensor) and each.is_floating_point()]
        if value.isnan().any() and not any(each.isnan().any() for each in tensors):
            raise LabError(
                f"{named}{describe(value)} with {int(value.isnan().sum())} NaN from arguments"
                " without NaN; expected numbers"
            )
        is_followed = torch.is_grad_enabled() and any(each.requires_grad for each in tensors)
        if is_followed and self.dtype.is_floating_point and not value.requires_grad:
            raise LabError(
                f"{named}a tensor without gradient; compute it with torch operations, or use a lab"
                " without this part"
            )
        return value


@dataclass(frozen=True)
class NumberSpec:
    """A finite number."""

    def check(self, named: str, value: Any, given: tuple[Any, ...]) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):
            raise LabError(f"{named}{describe(value)}; expected a finite number")
        return float(value)


@dataclass(frozen=True)
class IdsSpec:
    """A list of token ids from 0 to `count` - 1, `length` of them, or any number if it is None."""

    count: int
    length: int | None = None

    def check(self, named: str, value: Any, given: tuple[Any, ...]) -> list[int]:
        number = "" if self.length is None else f"{self.length} "
        expected = f"expected a list of {number}token ids from 0 to {self.count - 1}"
        if not isinstance(value, list | tuple) or self.length not in (None, len(value)):
            raise LabError(f"{named}{describe(value)}; {expected}")
        if wrong := [each for each in value if not is_id(each, self.count)]:
            raise LabError(f"{named}the id {shorten(show_safely(wrong[0]), 40)}; {expected}")
        return [index(each) for each in value]


@dataclass(frozen=True)
class PieceSpec:
    """Token ids whose bytes are, one after the other, the bytes of `piece`."""

    piece: bytes
    ranks: Mapping[bytes, int]

    def check(self, named: str, value: Any, given: tuple[Any, ...]) -> list[int]:
        if not isinstance(value, list | tuple) or not self.is_spelled_by(value):
            raise LabError(
                f"{named}{describe(value)} for {shorten(repr(self.piece), 40)}; expected a list of"
                " token ids whose bytes, in order, are those of the piece"
            )
        return [index(each) for each in value]

    def is_spelled_by(self, ids: Sequence[Any]) -> bool:
        """Whether these are ids of the piece's bytes, from the first to the last."""
        at = 0
        for id in ids:
            ends = range(at + 1, len(self.piece) + 1)
            fits = (end for end in ends if self.ranks.get(self.piece[at:end]) == id)
            at = next(fits, -1) if is_id(id, LARGEST) else -1
            if at < 0:
                return False
        return at == len(self.piece)


@dataclass(frozen=True)
class MessagesSpec:
    """A list of messages whose contents are text."""

    def check(self, named: str, value: Any, given: tuple[Any, ...]) -> list[Message]:
        expected = 'expected a list of messages, such as Message.of("assistant", "4")'
        if not isinstance(value, list | tuple):
            raise LabError(f"{named}{describe(value)}; {expected}")
        if wrong := [each for each in value if not is_text_message(each)]:
            raise LabError(f"{named}a list with {describe(wrong[0])}; {expected}")
        return list(value)


def is_id(value: Any, count: int) -> bool:
    try:
        return not isinstance(value, bool) and 0 <= index(value) < count
    except Exception:  # `__index__` may be a learner's
        return False


def is_text_message(value: Any) -> bool:
    """Whether this is a message whose content and header fields are text."""
    if not isinstance(value, Message):
        return False
    fields = value.channel, value.recipient, value.content_type
    return all(each is None or isinstance(each, str) for each in fields) and all(
        isinstance(part, TextContent) and isinstance(part.text, str) for part in value.content
    )


def is_plain(value: Any) -> bool:
    """Whether this is an ordinary tensor: not nested and not sparse."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_nested


def describe(value: Any) -> str:
    if is_plain(value):
        return describe_tensor(tuple(value.shape), value.dtype, value.device)
    if isinstance(value, Tensor):
        return "a nested tensor" if value.is_nested else "a sparse tensor"
    return f"{type(value).__name__} {shorten(show_safely(value), 40)}"


def describe_tensor(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> str:
    return f"a tensor {list(shape)} {str(dtype).removeprefix('torch.')} on {device}"

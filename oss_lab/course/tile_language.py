"""The part of Triton's language that the course uses, on torch tensors, with a count of bytes.

A kernel for Triton takes its functions from `tl`. With this module as `tl`, the same kernel runs
where Triton does not exist, and every load and store is counted (see `count_bytes`).

There are no caches here: bytes that are loaded twice count twice. A lane whose mask is False moves
no bytes. It is counted as idle. Within one program all lanes work at the same time, so a value that
one lane stores is not meant to be loaded by another.
"""

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from oss_lab.errors import LabError

int32, int64, float32 = torch.int32, torch.int64, torch.float32


class constexpr(int):
    """Marks a parameter of a kernel whose value is known before it is compiled."""


@dataclass
class Run:
    """A launch: the running program's index on each axis of the grid, and what all have moved.

    Attributes:
        loaded: bytes by the name of the argument; `stored` likewise.
        lanes: places of all loads and stores; the mask is False in `idle` of them.
    """

    index: tuple[int, ...] = (0,)
    loaded: dict[str, int] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)
    lanes: int = 0
    idle: int = 0


current: ContextVar[Run] = ContextVar("current")


@dataclass(frozen=True)
class Pointer:
    """Addresses in one tensor: adding a number or a tensor of numbers moves them."""

    name: str
    numbers: Tensor  # [n]
    place: Any = 0

    def __add__(self, places: Any) -> "Pointer":
        return Pointer(self.name, self.numbers, self.place + places)

    __radd__ = __add__


def find_lanes(pointer: Pointer, mask: Any) -> tuple[Tensor, Tensor]:
    """The place of each lane, and whether its mask is True. Counts the lanes.

    Raises:
        LabError: an unmasked lane is outside of the tensor.
    """
    if not isinstance(pointer, Pointer):
        raise LabError(f"expected an address, such as x + places, got {type(pointer).__name__}")
    run, place = current.get(), torch.as_tensor(pointer.place).long()
    inside = torch.as_tensor(True if mask is None else mask).expand(place.shape)
    used, size = place[inside], pointer.numbers.numel()
    outside = used[(used < 0) | (used >= size)]
    if outside.numel():
        raise LabError(
            f"program {run.index[0]} uses place {int(outside[0])} of {pointer.name}, which has"
            f" {size} numbers; give this load or store a mask that is False there"
        )
    run.lanes += place.numel()
    run.idle += place.numel() - used.numel()
    return place, inside


def add_bytes(counts: dict[str, int], pointer: Pointer, inside: Tensor) -> None:
    moved = int(inside.sum()) * pointer.numbers.element_size()
    counts[pointer.name] = counts.get(pointer.name, 0) + moved


def load(pointer: Pointer, mask: Any = None, other: float = 0) -> Tensor:
    """The numbers at these addresses; `other` where the mask is False."""
    place, inside = find_lanes(pointer, mask)
    add_bytes(current.get().loaded, pointer, inside)
    found = torch.full(place.shape, other, dtype=pointer.numbers.dtype)
    found[inside] = pointer.numbers[place[inside]]
    return found


def store(pointer: Pointer, value: Any, mask: Any = None) -> None:
    """Write the value to these addresses, except where the mask is False."""
    place, inside = find_lanes(pointer, mask)
    add_bytes(current.get().stored, pointer, inside)
    value = torch.as_tensor(value).expand(place.shape)
    pointer.numbers[place[inside]] = value[inside].to(pointer.numbers.dtype)


def program_id(axis: int) -> Tensor:
    """The index of the running program."""
    return torch.tensor(current.get().index[axis], dtype=torch.int32)


def arange(start: int, end: int) -> Tensor:
    """The numbers from start to end - 1. As in Triton, they must be a power of two many."""
    count = end - start
    if count < 1 or count & (count - 1):
        raise LabError(f"tl.arange needs a power of two, got {count}; round up and use a mask")
    return torch.arange(start, end, dtype=torch.int32)


def zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


def sum(x: Tensor, axis: int | None = None) -> Tensor:
    return x.sum() if axis is None else x.sum(axis)


def max(x: Tensor, axis: int) -> Tensor:
    return x.amax(axis)


def argmax(x: Tensor, axis: int) -> Tensor:
    """The index of the largest number; of equal ones the first."""
    return x.argmax(axis)


def where(condition: Tensor, x: Any, y: Any) -> Tensor:
    return torch.where(condition, x, y)


def exp(x: Tensor) -> Tensor:
    return x.exp()


def exp2(x: Tensor) -> Tensor:
    return x.exp2()

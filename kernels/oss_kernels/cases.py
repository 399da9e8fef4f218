"""The launches that an operation is compiled and timed with, at a model's sizes.

Every operation's folder has a `cases.py` with `cases(shapes, make)`. The compile gate makes tensors
without memory, and the benchmark makes them on a device. Both use the same launches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from oss_kernels.launch import Launch  # imports triton, which the CPU benchmark does not need

Need = Literal[
    "wide loads", "matrix instructions", "subnormals", "asynchronous copies", "no lane exchanges"
]


@dataclass(frozen=True)
class Case:
    """One use of an operation.

    Attributes:
        launches: the kernel launches, in order.
        bytes: minimum bytes that must be read and written, each counted once.
        flops: floating-point operations in the operation's definition; a multiply-add is two.
        needs: what the compiled code must have: 128-bit loads, matrix instructions (warp-group
            ones on sm_90 and sm_100), no flushing of subnormals to zero, asynchronous copies inside
            a loop (NVIDIA), or loops in which no number moves from lane to lane.
    """

    name: str
    launches: tuple[Launch, ...]
    bytes: int
    flops: int
    needs: frozenset[Need] = frozenset()


@dataclass
class Make:
    """Makes a case's tensors. On the device "meta" they have no memory and no values."""

    device: str = "meta"
    seed: int = 0

    def __post_init__(self) -> None:
        where = "cpu" if self.device == "meta" else self.device
        self.generator = torch.Generator(where).manual_seed(self.seed)

    def normal(self, *shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        if self.device == "meta":
            return torch.empty(shape, dtype=dtype, device="meta")
        wide = torch.randn(shape, device=self.device, generator=self.generator)
        return wide.to(dtype)

    def integers(self, low: int, high: int, *shape: int, dtype: torch.dtype) -> Tensor:
        """Random integers from low to high - 1."""
        if self.device == "meta":
            return torch.empty(shape, dtype=dtype, device="meta")
        return torch.randint(
            low, high, shape, dtype=dtype, device=self.device, generator=self.generator
        )

    def empty(self, *shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

    def mxfp4(self, *rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Packed weights with scales from 2^-10 to 2^-1: blocks [rows groups 16] and scales."""
        blocks = self.integers(0, 256, *rows, columns // 32, 16, dtype=torch.uint8)
        scales = self.integers(117, 127, *rows, columns // 32, dtype=torch.uint8)
        return blocks, scales


def nbytes(*tensors: Tensor) -> int:
    """The bytes of all tensors. A meta tensor counts the bytes it would have on a device."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def format_token_count(tokens: int) -> str:
    """The number of tokens as text, for the name of a case."""
    return "1 token" if tokens == 1 else f"{tokens} tokens"

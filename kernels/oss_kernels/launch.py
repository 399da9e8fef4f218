"""One launch of a Triton kernel: what is passed, in how many programs, with which options.

The same `Launch` runs on a device, in Triton's interpreter, and, made of tensors without memory,
through the compile gate: what is tested there is what runs.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import triton.language as tl
from torch import Tensor
from triton import knobs

INTERPRETED: bool = knobs.runtime.interpret
"""Whether kernels run in Triton's interpreter (TRITON_INTERPRET=1 when they were imported)."""


def dot_dtype(dtype: torch.dtype) -> tl.dtype:
    """The type to which both sides of a `tl.dot` are cast, for activations or weights of `dtype`.

    bfloat16 stays what it is, for matrix instructions, except in Triton's interpreter, which cannot
    multiply it. float32 is not rounded to it.
    """
    return tl.bfloat16 if dtype == torch.bfloat16 and not INTERPRETED else tl.float32


@dataclass(frozen=True)
class Launch:
    """`kernel[grid](**arguments, **constants)`.

    Attributes:
        arguments: tensors and numbers, by parameter.
        constants: compile-time values, by parameter.
        num_warps: groups of 32 threads (64 on AMD's MI300X) that run one program together.
        num_stages: steps of a loop whose loads are under way at once; Triton sees to it.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Tensor | int | float]
    constants: dict[str, Any] = field(default_factory=dict)
    num_warps: int = 4
    num_stages: int = 2

    def __call__(self) -> None:
        if 0 in self.grid:
            return
        self.kernel[self.grid](**self.arguments, **self.constants, **self.options)

    @property
    def options(self) -> dict[str, Any]:
        """What the compiler is told; a multiply and an add may become one instruction."""
        return {
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
            "enable_fp_fusion": True,
        }

"""One launch of a Triton kernel: its arguments, its number of programs and its options.

The same `Launch` runs on a device, in Triton's interpreter and, with tensors that have no memory,
through the compile gate. So the gate tests the code that runs.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
import triton.language as tl
from torch import Tensor
from triton import knobs

INTERPRETED: bool = knobs.runtime.interpret
"""True if kernels run in Triton's interpreter (TRITON_INTERPRET=1 when they were imported)."""


def dot_dtype(dtype: torch.dtype) -> tl.dtype:
    """The type that both operands of a `tl.dot` are cast to, for activations or weights in `dtype`.

    bfloat16 stays bfloat16, for matrix instructions, except in Triton's interpreter, which cannot
    multiply it. float32 is not rounded to bfloat16.
    """
    return tl.bfloat16 if dtype == torch.bfloat16 and not INTERPRETED else tl.float32


def adapt_constants(constants: dict[str, Any], backend: str) -> dict[str, Any]:
    """The constants for this compiler back end, "cuda" or "hip".

    STAGES is how many steps of a loop without `tl.dot` are in flight. On NVIDIA the loads of later
    steps are asynchronous copies to shared memory. On AMD they would wait in registers, which three
    steps overflow, so there a program has one step and other programs hide its loads.
    """
    return constants | {"STAGES": 1} if backend == "hip" and "STAGES" in constants else constants


@dataclass(frozen=True)
class Launch:
    """`kernel[grid](**arguments, **constants)`.

    Attributes:
        arguments: tensors and numbers, by parameter name.
        constants: compile-time values, by parameter name.
        num_warps: number of warps per program. A warp is 32 threads (64 on AMD's MI300X).
        num_stages: how many steps of a loop Triton keeps in flight, to overlap their loads.
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
        constants = adapt_constants(self.constants, "hip" if torch.version.hip else "cuda")
        self.kernel[self.grid](**self.arguments, **constants, **self.options)

    @property
    def options(self) -> dict[str, Any]:
        """Compiler options. `enable_fp_fusion` fuses a multiply and an add into one instruction."""
        return {
            "num_warps": self.num_warps,
            "num_stages": self.num_stages,
            "enable_fp_fusion": True,
        }

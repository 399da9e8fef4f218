"""What this CPU can do, as LLVM (which numba compiles with) reports it.

A `Path` is a way to multiply packed weights. A machine has several, each with the same results to
float32's rounding; tests run all of them, callers take the default. Anything that is not x86-64
with AVX2 takes "plain", which uses no instruction of a particular CPU.
"""

from functools import cache
from typing import Literal

import llvmlite.binding as llvm
import torch

Path = Literal["avx512_bf16", "avx512", "avx2", "plain"]

NEEDS: dict[Path, frozenset[str]] = {
    "avx512_bf16": frozenset({"avx512f", "avx512bw", "avx512bf16"}),
    "avx512": frozenset({"avx512f", "avx512bw"}),
    "avx2": frozenset({"avx2", "fma"}),
    "plain": frozenset(),
}
SMALLEST: dict[Path, int] = {"avx512_bf16": 4, "avx512": 4, "avx2": 2, "plain": 2}
"""The groups of 32 weights that a row must have at least."""


@cache
def features() -> frozenset[str]:
    """LLVM's names of this CPU's instruction sets."""
    return frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)


@cache
def paths() -> tuple[Path, ...]:
    """What this machine has, the fastest first."""
    return tuple(path for path, needed in NEEDS.items() if needed <= features())


@cache
def path_for(dtype: torch.dtype, groups: int) -> Path | None:
    """The fastest for these activations and this length of row; None if there is none."""
    if dtype not in (torch.bfloat16, torch.float32):
        return None
    for path in paths():
        if groups >= SMALLEST[path] and takes(path, dtype):
            return path
    return None


def takes(path: Path, dtype: torch.dtype) -> bool:
    """Whether a path multiplies activations of this type without rounding them."""
    return dtype == torch.bfloat16 or (dtype == torch.float32 and path != "avx512_bf16")


def multiplies_bfloat16() -> bool:
    """Whether large bfloat16 products are faster than float32 ones: the CPU has an instruction."""
    return bool(features() & {"avx512bf16", "amx-bf16", "bf16"})

"""What this CPU can do, as LLVM (which numba compiles with) reports it.

A path is a way to multiply packed weights, named after its `InstructionSet`. A machine has several,
each with the same results to float32's rounding; tests run all of them, callers take what
`e2m1_layouts.path_for` says. Anything that is not x86-64 with AVX2 takes "plain", which uses no
instruction of a particular CPU. VARIABLE in the environment names the fastest that is taken.
"""

import os
from functools import cache
from typing import Literal

import llvmlite.binding as llvm
import torch

InstructionSet = Literal["avx512_bf16", "avx512", "avx2", "plain"]

NEEDS: dict[InstructionSet, frozenset[str]] = {
    "avx512_bf16": frozenset({"avx512f", "avx512bw", "avx512bf16"}),
    "avx512": frozenset({"avx512f", "avx512bw"}),
    "avx2": frozenset({"avx2", "fma"}),
    "plain": frozenset(),
}

VARIABLE = "OSS_KERNELS_CPU"


@cache
def features() -> frozenset[str]:
    """LLVM's names of this CPU's instruction sets; all that VARIABLE's path and slower ones need,
    if it is set.

    Raises:
        ImportError: VARIABLE is no path, or not one of this machine; one sentence says which are.
    """
    found = frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)
    asked = os.environ.get(VARIABLE)
    if not asked:
        return found
    here: list[InstructionSet] = [path for path, needed in NEEDS.items() if needed <= found]
    if asked not in here:
        raise ImportError(
            f"{VARIABLE} is {asked!r}; on this machine it must be {' or '.join(here)}"
        )
    return frozenset[str]().union(*(NEEDS[path] for path in here[here.index(asked) :]))


@cache
def paths() -> tuple[InstructionSet, ...]:
    """What this machine has, the fastest first."""
    return tuple(path for path, needed in NEEDS.items() if needed <= features())


def takes(path: InstructionSet, dtype: torch.dtype) -> bool:
    """Whether a path multiplies activations of this type without rounding them."""
    return dtype == torch.bfloat16 or (dtype == torch.float32 and path != "avx512_bf16")


def multiplies_bfloat16() -> bool:
    """Whether large bfloat16 products are faster than float32 ones: the CPU has an instruction."""
    return bool(features() & {"avx512bf16", "amx-bf16", "bf16"})


features()  # refuses here what VARIABLE must not be, so that nothing imports these kernels

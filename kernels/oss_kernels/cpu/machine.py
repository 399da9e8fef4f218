"""What this CPU can do, as LLVM (which numba compiles with) reports it.

A path is a way to multiply packed weights, named after its `InstructionSet`. A machine has several,
each with the same results to float32's rounding; tests run all of them, callers take what
`e2m1_layouts.path_for` says. Anything that is not x86-64 with AVX2 takes "plain", which uses no
instruction of a particular CPU. OSS_KERNELS_CPU in the environment
forces a slower path.
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
    """LLVM's names of the instruction sets in use: this CPU's, or those that the path in
    OSS_KERNELS_CPU and slower ones need.

    Raises:
        ImportError: OSS_KERNELS_CPU is not a path of this machine; the message lists them.
    """
    found = frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)
    asked = os.environ.get(VARIABLE)
    if not asked:
        return found
    here = paths_on(found)
    if asked not in here:
        raise ImportError(
            f"{VARIABLE} is {asked!r}; on this machine it must be {' or '.join(here)}"
        )
    return frozenset[str]().union(*(NEEDS[path] for path in here[here.index(asked) :]))


@cache
def paths() -> tuple[InstructionSet, ...]:
    """What this machine has, the fastest first."""
    return paths_on(features())


def paths_on(found: frozenset[str]) -> tuple[InstructionSet, ...]:
    """The paths of a CPU with these instruction sets, the fastest first."""
    return tuple(path for path, needed in NEEDS.items() if needed <= found)


def takes(path: InstructionSet, dtype: torch.dtype) -> bool:
    """Whether a path multiplies activations of this type without rounding them."""
    return dtype == torch.bfloat16 or (dtype == torch.float32 and path != "avx512_bf16")


def multiplies_bfloat16() -> bool:
    """Whether large bfloat16 products are faster than float32 ones: the CPU has an instruction."""
    return bool(features() & {"avx512bf16", "amx-bf16", "bf16"})


features()  # an invalid OSS_KERNELS_CPU fails here, when these kernels are imported

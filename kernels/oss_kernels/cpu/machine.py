"""Which instruction sets this CPU has, as reported by LLVM (which numba compiles with).

A path is the code that multiplies packed weights with one `InstructionSet`. A machine usually has
several. Their results agree up to float32 rounding. Tests run all of them; callers use the one that
`e2m1_layouts.choose_path` returns. A CPU that is not x86-64 with AVX2 uses "plain", which needs no
special instruction. The environment variable OSS_KERNELS_CPU forces a slower path.
"""

import ctypes
import os
import sys
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
def list_features() -> frozenset[str]:
    """LLVM's names of the instruction sets to use.

    These are all that this CPU has. If OSS_KERNELS_CPU is set, only those that its path and slower
    paths need.

    Raises:
        ImportError: this machine does not have the path in OSS_KERNELS_CPU. The message lists the
            available paths.
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
def list_paths() -> tuple[InstructionSet, ...]:
    """The paths of this machine, fastest first."""
    return paths_on(list_features())


def paths_on(found: frozenset[str]) -> tuple[InstructionSet, ...]:
    """The paths of a CPU with these instruction sets, fastest first."""
    return tuple(path for path, needed in NEEDS.items() if needed <= found)


def accepts(path: InstructionSet, dtype: torch.dtype) -> bool:
    """Whether a path multiplies activations of this type without rounding them."""
    return dtype == torch.bfloat16 or (dtype == torch.float32 and path != "avx512_bf16")


def has_fast_bfloat16() -> bool:
    """Whether the CPU has a bfloat16 instruction, which makes large bfloat16 products fast."""
    return bool(list_features() & {"avx512bf16", "amx-bf16", "bf16"})


@cache
def has_amx() -> bool:
    """Whether this process may use AMX for bfloat16. Linux grants that on request."""
    if not {"amx-tile", "amx-bf16", "avx512bw"} <= list_features() or sys.platform != "linux":
        return False
    request, permission, tile_data = 158, 0x1023, 18  # arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA
    return ctypes.CDLL(None).syscall(request, permission, tile_data) == 0


list_features()  # raises here, at import, if OSS_KERNELS_CPU is invalid

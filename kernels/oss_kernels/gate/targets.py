"""The GPUs that kernels are compiled for."""

from dataclasses import dataclass

KIB = 1024


@dataclass(frozen=True)
class CompileTarget:
    """A GPU architecture. `shared` is the bytes of shared memory (LDS) that one program may use.

    Sources: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"; AMD's
    ISA guides (64 KiB of LDS for a work-group).
    """

    name: str
    backend: str
    arch: int | str
    warp: int
    shared: int
    card: str


TARGETS = (
    CompileTarget("sm_80", "cuda", 80, 32, 163 * KIB, "A100"),
    CompileTarget("sm_86", "cuda", 86, 32, 99 * KIB, "RTX 3090"),
    CompileTarget("sm_89", "cuda", 89, 32, 99 * KIB, "RTX 4090"),
    CompileTarget("sm_90", "cuda", 90, 32, 227 * KIB, "H100, H200"),
    CompileTarget("sm_100", "cuda", 100, 32, 227 * KIB, "B200"),
    CompileTarget("sm_120", "cuda", 120, 32, 99 * KIB, "RTX 5090"),
    CompileTarget("gfx942", "hip", "gfx942", 64, 64 * KIB, "MI300X"),
    CompileTarget("gfx1100", "hip", "gfx1100", 32, 64 * KIB, "RX 7900"),
)

"""The GPUs that kernels are compiled for."""

from dataclasses import dataclass

KIB = 1024


@dataclass(frozen=True)
class Target:
    """A GPU architecture; `shared` is what one program may use of its shared memory (LDS), bytes.

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
    Target("sm_80", "cuda", 80, 32, 163 * KIB, "A100"),
    Target("sm_86", "cuda", 86, 32, 99 * KIB, "RTX 3090"),
    Target("sm_89", "cuda", 89, 32, 99 * KIB, "RTX 4090"),
    Target("sm_90", "cuda", 90, 32, 227 * KIB, "H100, H200"),
    Target("sm_100", "cuda", 100, 32, 227 * KIB, "B200"),
    Target("sm_120", "cuda", 120, 32, 99 * KIB, "RTX 5090"),
    Target("gfx942", "hip", "gfx942", 64, 64 * KIB, "MI300X"),
    Target("gfx1100", "hip", "gfx1100", 32, 64 * KIB, "RX 7900"),
)

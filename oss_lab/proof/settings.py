"""What is gone through: lengths, precisions and kernels, and how close each must be.

Lengths come from the architecture: short, one past gpt-oss's window of 128, far past nano's window
and initial context. A bound is about three times what was measured on nano, so that a wrong sink,
window, rotation or rounding, which shows as tens of per cent, cannot hide below it.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from oss_kernels.backends import NAMES, Name, obstacle

from oss_lab.checkpoint.plan import Dtype
from oss_lab.points import POINTS, SHOWN_BY_KERNELS

QUICK, LENGTHS = (13, 300), (13, 129, 300, 1000)
BOUNDS: dict[Dtype, float] = {"float32": 1.5e-4, "bfloat16": 0.25}
SEED = 0


@dataclass(frozen=True)
class Setting:
    """One way to compute, over one sequence of random ids."""

    seq: int
    dtype: Dtype
    kernels: Name

    @property
    def points(self) -> Collection[str]:
        """What this backend shows; the reference shows everything."""
        if self.kernels == "reference":
            return tuple(POINTS)
        return tuple(name for name in POINTS if name in SHOWN_BY_KERNELS)

    def __str__(self) -> str:
        return f"{self.seq} tokens, {self.dtype}, {self.kernels} kernels"


def settings(quick: bool, device: torch.device) -> list[Setting]:
    """Every length in both precisions with every backend that can run here."""
    usable: list[Name] = [name for name in NAMES if obstacle(name, device) is None]
    return [
        Setting(seq, dtype, kernels)
        for seq in (QUICK if quick else LENGTHS)
        for dtype in BOUNDS
        for kernels in usable
    ]

"""What is gone through: lengths, precisions and kernels, and how close each must be.

Lengths come from the architecture: short, one past gpt-oss's window of 128, far past nano's window
and initial context, one past gpt-oss's initial context. The last is gone through in float32 only:
in bfloat16 rounding alone reaches a third of a sink's mass there.

A bound is about three times what was measured on nano, so that a wrong sink, window, rotation or
rounding, which shows as tens of per cent, cannot hide below it. Beyond 1,000 tokens it grows with
the length, as the error of RoPE's angles does, which float32 rounds.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from oss_kernels.backends import NAMES, Name, obstacle

from oss_lab.checkpoint.plan import Dtype
from oss_lab.hooks.points import POINTS, SHOWN_BY_KERNELS, lines_of
from oss_lab.proof.transformers_forward import ABSENT

QUICK, LENGTHS = (13, 300), (13, 129, 300, 1000)
LONG = 4097
MOST = max(LENGTHS)
"""Tokens up to which bounds hold as they stand, and a number for each pair of them is compared."""
BOUNDS: dict[Dtype, float] = {"float32": 1.5e-4, "bfloat16": 0.25}
SEED = 0
Against = Literal["NumPy", "transformers"]


@dataclass(frozen=True)
class Setting:
    """One way to compute, over one sequence of random ids, and what it is held against."""

    seq: int
    dtype: Dtype
    kernels: Name
    against: Against = "NumPy"

    @property
    def points(self) -> Collection[str]:
        """What is compared."""
        return [name for name in POINTS if name not in self.left_out]

    @property
    def left_out(self) -> Mapping[str, str]:
        """{point: why it is not compared}, a reason that fits behind the point's name."""
        left_out = dict(ABSENT) if self.against == "transformers" else {}
        for name, point in POINTS.items():
            hidden = lines_of([name]) - SHOWN_BY_KERNELS
            if self.kernels != "reference" and hidden:
                left_out[name] = f"{self.kernels} kernels: {POINTS[min(hidden)].inside}"
            if "key" in point.axes and self.seq > MOST:
                left_out[name] = f"a number for each pair of {self.seq:,} tokens is too much"
        return left_out

    @property
    def bound(self) -> float:
        return BOUNDS[self.dtype] * max(1, self.seq / MOST)

    def __str__(self) -> str:
        against = "" if self.against == "NumPy" else f", against {self.against}"
        return f"{self.seq} tokens, {self.dtype}, {self.kernels} kernels{against}"


def settings(quick: bool, device: torch.device) -> list[Setting]:
    """Every length in both precisions with every backend that can run here."""
    usable: list[Name] = [name for name in NAMES if obstacle(name, device) is None]
    lengths = [
        Setting(seq, dtype, kernels)
        for seq in (QUICK if quick else LENGTHS)
        for dtype in BOUNDS
        for kernels in usable
    ]
    return lengths if quick else [*lengths, *(Setting(LONG, "float32", name) for name in usable)]


def transformers_settings(quick: bool) -> list[Setting]:
    """float32 only, and not the long one: eager attention holds a layer's whole pattern several
    times over."""
    lengths = QUICK if quick else LENGTHS
    return [Setting(seq, "float32", "reference", "transformers") for seq in lengths]

"""The settings of the proof: lengths, precisions, kernels, and the error that each may have.

Lengths come from the architecture: a short one, one past gpt-oss's window of 128, two past nano's
window and initial context, and one past gpt-oss's initial context of 4,096. The last runs in
float32 only, because in bfloat16 the rounding error there is up to a third of a sink's mass.

A bound is about three times the error measured on nano. A wrong sink, window, rotation or rounding
causes errors of tens of percent, far above it. Above 1,000 tokens the bound grows with the length,
because float32 rounds RoPE's angles and the error of an angle grows with the position.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from oss_kernels.backends import NAMES, KernelName, find_obstacle

from oss_lab.checkpoint.plan import Dtype
from oss_lab.hooks.points import POINTS, RECORDABLE_IN_KERNELS, find_forward_points
from oss_lab.proof.transformers_forward import ABSENT

QUICK, LENGTHS = (13, 300), (13, 129, 300, 1000)
LONG = 4097
LONGEST_UNSCALED = max(LENGTHS)
"""Up to this many tokens the bounds apply unscaled, and points with a number per pair of tokens
are compared."""
BOUNDS: dict[Dtype, float] = {"float32": 1.5e-4, "bfloat16": 0.25}
SEED = 0
Against = Literal["NumPy", "transformers"]


@dataclass(frozen=True)
class Setting:
    """One way to compute one sequence of random ids, and what it is compared with."""

    seq: int
    dtype: Dtype
    kernels: KernelName
    against: Against = "NumPy"

    @property
    def points(self) -> Collection[str]:
        """The points that are compared."""
        return [name for name in POINTS if name not in self.left_out]

    @property
    def left_out(self) -> Mapping[str, str]:
        """{point: why it is not compared}. The reason is printed after the point's name."""
        left_out = dict(ABSENT) if self.against == "transformers" else {}
        for name, point in POINTS.items():
            hidden = find_forward_points([name]) - RECORDABLE_IN_KERNELS
            if self.kernels != "reference" and hidden:
                left_out[name] = (
                    f"{self.kernels} kernels: {POINTS[min(hidden)].not_in_kernels_reason}"
                )
            if "key" in point.axes and self.seq > LONGEST_UNSCALED:
                left_out[name] = f"too large, a number for each pair of {self.seq:,} tokens"
        return left_out

    @property
    def bound(self) -> float:
        return BOUNDS[self.dtype] * max(1, self.seq / LONGEST_UNSCALED)

    def __str__(self) -> str:
        against = "" if self.against == "NumPy" else f", against {self.against}"
        return f"{self.seq} tokens, {self.dtype}, {self.kernels} kernels{against}"


def list_settings(quick: bool, device: torch.device) -> list[Setting]:
    """Every length in both precisions with every backend that can run here."""
    usable: list[KernelName] = [name for name in NAMES if find_obstacle(name, device) is None]
    lengths = [
        Setting(seq, dtype, kernels)
        for seq in (QUICK if quick else LENGTHS)
        for dtype in BOUNDS
        for kernels in usable
    ]
    return lengths if quick else [*lengths, *(Setting(LONG, "float32", name) for name in usable)]


def list_transformers_settings(quick: bool) -> list[Setting]:
    """The settings that compare with transformers: float32 only, without the longest sequence.

    Eager attention would need several times the memory of a layer's complete attention pattern.
    """
    lengths = QUICK if quick else LENGTHS
    return [Setting(seq, "float32", "reference", "transformers") for seq in lengths]

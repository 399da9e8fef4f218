"""The limits of this device: how fast it copies memory and multiplies matrices."""

from dataclasses import dataclass

import torch

from oss_kernels.bench.timing import time_calls

COPIED = 2**30  # bytes
SIDE = 8192


@dataclass(frozen=True)
class Limits:
    """Limits measured on this device with torch.

    Attributes:
        copy: bytes per second, counting both reads and writes.
        matrix: FLOP per second of a large matrix product in bfloat16.
    """

    copy: float
    matrix: float


def measure_limits() -> Limits:
    source = torch.ones(COPIED, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy = time_calls([lambda: target.copy_(source)])
    a = torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16)
    product = torch.empty_like(a)
    matrix = time_calls([lambda: torch.matmul(a, a, out=product)])
    return Limits(2 * COPIED / copy.median * 1e6, 2 * SIDE**3 / matrix.median * 1e6)

"""The limits of this device: how fast it copies memory and multiplies matrices."""

from dataclasses import dataclass

import torch

from oss_kernels.bench.timing import time_calls
from oss_kernels.cases import Make, nbytes
from oss_kernels.linear.kernel import launch
from oss_kernels.shapes import GPT_OSS_20B

COPIED = 2**30  # bytes
SIDE = 8192
PRODUCT_BYTES = 250e6  # of all copies of a weight: more than any L2 cache


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


def measure_products() -> dict[str, float]:
    """Gigabytes per second of bfloat16 matrix-vector products: q/k/v and the unembedding of 20b."""
    s, found = GPT_OSS_20B, {}
    for rows in (s.qkv_rows, s.vocab):
        copies = int(max(1, PRODUCT_BYTES // (2 * rows * s.hidden)))
        launches, size = [], 0
        for seed in range(copies):
            make = Make("cuda", seed)
            x, weight, out = (
                make.normal(1, s.hidden),
                make.normal(rows, s.hidden),
                make.empty(1, rows),
            )
            launches.append(launch(x, weight, None, None, out))
            size = nbytes(x, weight, out)
        found[f"{s.hidden} to {rows}"] = size / time_calls(launches).median / 1e3
    return found

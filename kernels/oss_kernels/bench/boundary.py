"""The time from the end of one kernel to the start of the next, within a CUDA graph.

Compares a chain of kernels, each of which needs the previous one, with a single kernel that does
all their work. With programmatic dependent launch (PDL) a kernel starts before the previous one has
ended and waits for it inside. PDL needs compute capability 9.0 or later.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from oss_kernels.bench.timing import time_calls

CHAIN = 64
BLOCK = 4096


@triton.jit
def add_one(x, size, BLOCK: tl.constexpr, PDL: tl.constexpr):
    if PDL:
        gdc_wait()
        gdc_launch_dependents()
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + place, tl.load(x + place, mask=place < size) + 1.0, mask=place < size)


def measure_boundary(elements: int) -> dict[str, float | None]:
    """Microseconds per boundary, with and without PDL, for kernels over `elements` float32."""
    chained = torch.zeros(elements, device="cuda")
    whole = torch.zeros(CHAIN * elements, device="cuda")
    alone = time_calls([lambda: run_add_one(whole, pdl=False)]).median
    capable = torch.cuda.get_device_capability() >= (9, 0)
    boundary: dict[str, float | None] = {"plain": None, "pdl": None}
    for name, pdl in (("plain", False), ("pdl", True)):
        if pdl and not capable:
            continue
        chain = time_calls([lambda pdl=pdl: run_add_one(chained, pdl=pdl)] * CHAIN).median * CHAIN
        boundary[name] = (chain - alone) / (CHAIN - 1)
    return boundary


def run_add_one(x: torch.Tensor, *, pdl: bool) -> None:
    options: dict[str, Any] = {"BLOCK": BLOCK, "PDL": pdl} | ({"launch_pdl": True} if pdl else {})
    add_one[triton.cdiv(x.numel(), BLOCK),](x, x.numel(), **options)

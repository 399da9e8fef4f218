"""The gradient of the experts' activation on the CPU, in one pass over the memory."""

from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from numba import njit, prange
from torch import Tensor

from oss_kernels.cpu.exponential import exponential
from oss_kernels.cpu.numbers import as_numpy, load_float32, store_rounded
from oss_kernels.cpu.sources import fingerprint
from oss_kernels.cpu.threads import follow_torch
from oss_kernels.swiglu_backward.checks import check_swiglu_backward


@cache
def units_kernel():
    """The compiled kernel. bfloat16 is uint16."""
    sources = fingerprint()

    @njit(parallel=True, nogil=True, cache=True, error_model="numpy")
    def kernel(
        gate_up,  # [unit 2]
        dact,  # [unit]
        alpha,
        limit,
        out,  # [unit 2]
    ):
        _ = sources  # makes numba recompile when a file in `cpu/` changes
        one, zero = np.float32(1), np.float32(0)
        for unit in prange(len(dact)):
            gate, up = load_float32(gate_up, (unit, 0)), load_float32(gate_up, (unit, 1))
            change = load_float32(dact, unit)
            g = limit if gate > limit else gate
            u = limit if up > limit else (-limit if up < -limit else up)
            s = one / (one + exponential(-alpha * g))
            dgate = change * s * (one + alpha * g * (one - s)) * (u + one)
            store_rounded(out, (unit, 0), dgate if gate <= limit else zero)
            store_rounded(out, (unit, 1), change * g * s if abs(up) <= limit else zero)

    return kernel


def swiglu_backward(
    gate_up: Float[Tensor, "row two_width"],
    dact: Float[Tensor, "row width"],
    *,
    alpha: float,
    limit: float,
) -> Float[Tensor, "row two_width"]:
    """The operation of `reference.swiglu_backward`, for float32 and bfloat16."""
    check_swiglu_backward(gate_up, dact)
    out = torch.empty(gate_up.shape, dtype=gate_up.dtype)
    follow_torch()
    units_kernel()(
        as_numpy(gate_up).reshape(-1, 2),
        as_numpy(dact).ravel(),
        np.float32(alpha),
        np.float32(limit),
        as_numpy(out).reshape(-1, 2),
    )
    return out

"""The gradient of the experts' activation in Triton, in one pass over the memory.

    gate_up   g0 u0 g1 u1 ...     a unit is a gate and its up; units do not depend on each other,
    dact      d0    d1            so a program computes UNITS of them, wherever they are

A unit is 10 bytes in bfloat16: 6 read, 4 written. In torch it would be a dozen such passes.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from oss_kernels.launch import Launch
from oss_kernels.swiglu_backward.checks import check_swiglu_backward

UNITS = 1024  # per program: 8 for each of its 128 threads


@triton.jit  # specialized to counts divisible by 16, as widths are: masks then allow wide loads
def unit_kernel(gate_up, dact, out, count, alpha, limit, UNITS: tl.constexpr):
    begin = tl.program_id(0).to(tl.int64) * UNITS  # 64 bits: 2 * unit may exceed 2^31
    unit, number = begin + tl.arange(0, UNITS), 2 * begin + tl.arange(0, 2 * UNITS)
    within, held = unit < count, number < 2 * count
    both = tl.load(gate_up + number, mask=held, other=0.0).to(tl.float32)
    gate, up = tl.split(tl.reshape(both, (UNITS, 2)))
    change = tl.load(dact + unit, mask=within, other=0.0).to(tl.float32)
    g = tl.where(gate > limit, limit, gate)
    u = tl.where(up > limit, limit, tl.where(up < -limit, -limit, up))
    s = tl.sigmoid(alpha * g)
    dgate = tl.where(gate <= limit, change * s * (1.0 + alpha * g * (1.0 - s)) * (u + 1.0), 0.0)
    dup = tl.where(tl.abs(up) <= limit, change * g * s, 0.0)
    tl.store(out + number, tl.reshape(tl.join(dgate, dup), (2 * UNITS,)), mask=held)


def launch(gate_up: Tensor, dact: Tensor, out: Tensor, alpha: float, limit: float) -> Launch:
    """The launch: one program per UNITS units. All tensors are contiguous."""
    return Launch(
        unit_kernel,
        (triton.cdiv(dact.numel(), UNITS),),
        {
            "gate_up": gate_up,
            "dact": dact,
            "out": out,
            "count": dact.numel(),
            "alpha": alpha,
            "limit": limit,
        },
        {"UNITS": UNITS},
    )


def swiglu_backward(
    gate_up: Float[Tensor, "row two_width"],
    dact: Float[Tensor, "row width"],
    *,
    alpha: float,
    limit: float,
) -> Float[Tensor, "row two_width"]:
    """The operation of `reference.swiglu_backward`, for float32 and bfloat16."""
    check_swiglu_backward(gate_up, dact)
    gate_up = gate_up.contiguous()
    out = torch.empty_like(gate_up)
    launch(gate_up, dact.contiguous(), out, alpha, limit)()
    return out

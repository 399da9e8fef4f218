"""RMSNorm in Triton: a program normalizes one token.

    token 0   x x x x x x x x   <- program 0: load all, sum of squares, scale, store
    token 1   x x x x x x x x   <- program 1

A row of 2,880 bfloat16 is 5.8 KB and stays in registers between the sum and the product, so that
it is read from memory once. COLUMNS fills the row up to a power of two, as Triton's ranges must
be; what lies beyond the row is masked, read as zero, and adds nothing to the sum.

How to read a Triton kernel: the function runs once for each index of a grid, a *program*. A tensor
argument is the address of its first number; adding n moves n numbers on, and a range added to it
makes as many addresses at once. tl.constexpr are values known when it is compiled. `launch` says
how many programs there are.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from oss_kernels.launch import Launch
from oss_kernels.rms_norm.checks import check


@triton.jit
def rms_norm_kernel(x, scale, out, hidden, eps, COLUMNS: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)  # 64 bits: token * hidden may pass 2^31
    columns = tl.arange(0, COLUMNS)
    within = columns < hidden
    # bfloat16 is widened at once: sums of squares need float32's digits.
    values = tl.load(x + token * hidden + columns, mask=within, other=0.0).to(tl.float32)
    mean_square = tl.sum(values * values, axis=0) / hidden
    factors = tl.load(scale + columns, mask=within, other=0.0).to(tl.float32)
    normed = values * tl.rsqrt(mean_square + eps) * factors
    tl.store(out + token * hidden + columns, normed, mask=within)  # rounds to out's type


def launch(x: Tensor, scale: Tensor, out: Tensor, eps: float) -> Launch:
    """One program a token; x, scale and out contiguous."""
    tokens, hidden = x.shape
    columns = triton.next_power_of_2(hidden)
    return Launch(
        rms_norm_kernel,
        (tokens,),
        {"x": x, "scale": scale, "out": out, "hidden": hidden, "eps": eps},
        {"COLUMNS": columns},
        num_warps=max(1, min(8, columns // 512)),  # 16 numbers a thread, up to 4,096 columns
    )


def rms_norm(
    x: Float[Tensor, "token hidden"], scale: Float[Tensor, "hidden"], eps: float
) -> Float[Tensor, "token hidden"]:
    """The operation of `reference.rms_norm`."""
    check(x, scale)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    launch(x.contiguous(), scale.contiguous(), out, eps)()
    return out

"""RMSNorm in Triton: out = x / sqrt(mean(x^2) + eps) * scale. One program normalizes one token.

    token 0   x x x x x x x x   <- program 0: load the row, sum its squares, scale, store
    token 1   x x x x x x x x   <- program 1

A row of 2,880 bfloat16 numbers is 5.8 KB. It stays in registers between the sum and the product, so
it is read from memory once. COLUMNS rounds the row's length up to a power of two, as Triton's
ranges require. Positions after the row are masked: they read as zero and add nothing to the sum.

How to read a Triton kernel: the function runs once for each index of a grid; each run is called a
*program*. A tensor argument is the address of its first number. Adding n gives the address n
numbers later, and adding a range gives a tensor of addresses. tl.constexpr marks values known at
compile time. `launch` sets the number of programs.
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from oss_kernels.launch import Launch
from oss_kernels.rms_norm.checks import check_rms_norm


@triton.jit
def normalize(x, scale, columns, hidden, eps):
    """One token's normalized x [COLUMNS], rounded to x's dtype and widened again.

    x and scale point to [hidden]. Columns from `hidden` on give zeros. Other kernels call this too.
    """
    within = columns < hidden
    # Widened to float32 first: a sum of squares in bfloat16 would lose its digits.
    values = tl.load(x + columns, mask=within, other=0.0).to(tl.float32)
    mean_square = tl.sum(values * values, axis=0) / hidden
    factors = tl.load(scale + columns, mask=within, other=0.0).to(tl.float32)
    normed = values * tl.rsqrt(mean_square + eps) * factors
    return normed.to(x.dtype.element_ty).to(tl.float32)


@triton.jit
def rms_norm_kernel(x, scale, out, hidden, eps, COLUMNS: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)  # 64 bits: token * hidden may exceed 2^31
    columns = tl.arange(0, COLUMNS)
    normed = normalize(x + token * hidden, scale, columns, hidden, eps)  # [COLUMNS]
    tl.store(out + token * hidden + columns, normed, mask=columns < hidden)


def launch(x: Tensor, scale: Tensor, out: Tensor, eps: float) -> Launch:
    """The launch: one program per token. x, scale and out are contiguous."""
    tokens, hidden = x.shape
    columns = triton.next_power_of_2(hidden)
    return Launch(
        rms_norm_kernel,
        (tokens,),
        {"x": x, "scale": scale, "out": out, "hidden": hidden, "eps": eps},
        {"COLUMNS": columns},
        num_warps=max(1, min(8, columns // 512)),  # 16 numbers per thread, up to 4,096 columns
    )


def rms_norm(
    x: Float[Tensor, "token hidden"], scale: Float[Tensor, "hidden"], eps: float
) -> Float[Tensor, "token hidden"]:
    """The operation of `reference.rms_norm`."""
    check_rms_norm(x, scale)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    launch(x.contiguous(), scale.contiguous(), out, eps)()
    return out

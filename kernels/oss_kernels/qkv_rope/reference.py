"""RMSNorm, the q/k/v projection, RoPE and the append to the cache in plain torch."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from oss_kernels.rms_norm.reference import rms_norm


def qkv_rope(
    x: Float[Tensor, "batch hidden"],
    norm_scale: Float[Tensor, "hidden"],
    eps: float,
    weight: Float[Tensor, "rows hidden"],
    bias: Float[Tensor, "rows"],
    cos: Float[Tensor, "batch head_dim"],
    sin: Float[Tensor, "batch head_dim"],
    keys: Float[Tensor, "batch kv_head capacity head_dim"],
    values: Float[Tensor, "batch kv_head capacity head_dim"],
    at: Int[Tensor, "*batch"],
) -> Float[Tensor, "batch head head_dim"]:
    """The rotated queries of one new token per row. Its key and value are written to slot `at`.

    The rows of the weight are the heads of q, then those of k, then those of v. `cos` is (cos, cos)
    and `sin` is (-sin, sin) for the two halves of a head. `at` is on the device, with one slot for
    all rows or one per row. If it is outside 0 ... capacity - 1, neither key nor value is written.
    Every step rounds to x's dtype.
    """
    kv_heads, capacity, head_dim = keys.shape[1:]
    heads = F.linear(rms_norm(x, norm_scale, eps), weight, bias).unflatten(1, (-1, head_dim))
    q_and_k, v = heads[:, :-kv_heads], heads[:, -kv_heads:]
    swapped = q_and_k.roll(head_dim // 2, dims=-1)
    q_and_k = q_and_k * cos[:, None] + swapped * sin[:, None]
    q, k = q_and_k[:, :-kv_heads], q_and_k[:, -kv_heads:]
    at = at.long().expand(len(x))
    row = ((at >= 0) & (at < capacity)).nonzero()[:, 0]
    keys[row, :, at[row]] = k[row]
    values[row, :, at[row]] = v[row]
    return q.contiguous()

"""Attention in Triton: which of the two kernels runs, and where its results go.

A few queries take `decode`, which splits the keys among programs; many take `prefill`, which splits
the queries. Both are the operation of `reference.attention`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_kernels.attention import decode, prefill
from oss_kernels.attention.checks import check
from oss_kernels.launch import Launch

DECODE_ROWS = 64  # queries times query heads of a kv head


def launches(
    q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, z: Tensor, lse: Tensor,
    window: int | None, padding: Tensor | None, later: int = 0,
) -> tuple[Launch, ...]:  # fmt: skip
    """z [batch seq head head_dim] and lse [batch head seq] contiguous; the others' last axis."""
    heads, seq = q.shape[1:3]
    given = (q, k, v, sinks, z, lse, window, padding, later)
    if 0 < heads // k.shape[1] * seq <= DECODE_ROWS:
        return decode.launches(*given)
    return (prefill.launch(*given),)


def attention(
    q: Float[Tensor, "batch head seq head_dim"],
    k: Float[Tensor, "#batch kv_head key head_dim"],
    v: Float[Tensor, "#batch kv_head key head_dim"],
    sinks: Float[Tensor, "head"],
    *,
    window: int | None = None,
    padding: Int[Tensor, "batch"] | None = None,
    later: int = 0,
) -> tuple[Float[Tensor, "batch head seq head_dim"], Float[Tensor, "batch head seq"]]:
    """The operation of `reference.attention`.

    q, k and v may be views of larger buffers; only a last axis that is not contiguous is copied. z
    lies in memory as [batch seq head head_dim], as the output projection reads it. q, k and v are
    float32 or bfloat16.
    """
    check(q, k, v, sinks, padding)
    batch, heads, seq, head_dim = q.shape
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    sinks, padding = sinks.contiguous(), None if padding is None else padding.contiguous()
    z = q.new_empty(batch, seq, heads, head_dim)
    lse = q.new_empty(batch, heads, seq, dtype=torch.float32)
    if k.shape[2] == 0:
        z.zero_()
        lse.copy_(sinks[:, None].expand_as(lse))
        return z.transpose(1, 2), lse
    for launch in launches(q, k, v, sinks, z, lse, window, padding, later):
        launch()
    return z.transpose(1, 2), lse

"""Attention in Triton: chooses between the two kernels and allocates their results.

A few queries use `decode`, which splits the keys among programs. Many use `prefill`, which splits
the queries. Both compute the operation of `reference.attention`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_kernels.attention import decode, prefill
from oss_kernels.attention.checks import check_attention
from oss_kernels.launch import Launch

DECODE_ROWS = 64  # maximum number of rows for `decode`: queries times query heads per kv head


def make_launches(
    q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, z: Tensor, lse: Tensor,
    window: int | None, padding: Tensor | None, later: int = 0, starts: Tensor | None = None,
) -> tuple[Launch, ...]:  # fmt: skip
    """The launches of the kernel that fits these sizes.

    z [batch seq head head_dim] and lse [batch head seq] are contiguous; q, k and v need only a
    contiguous last axis.
    """
    heads, seq = q.shape[1:3]
    given = (q, k, v, sinks, z, lse, window, padding, later)
    if starts is None and 0 < heads // k.shape[1] * seq <= DECODE_ROWS:
        return decode.make_launches(*given)
    return (prefill.launch(*given, starts),)


def attention(
    q: Float[Tensor, "batch head seq head_dim"],
    k: Float[Tensor, "#batch kv_head key head_dim"],
    v: Float[Tensor, "#batch kv_head key head_dim"],
    sinks: Float[Tensor, "head"],
    *,
    window: int | None = None,
    padding: Int[Tensor, "batch"] | None = None,
    later: int = 0,
    starts: Int[Tensor, "#batch seq"] | None = None,
) -> tuple[Float[Tensor, "batch head seq head_dim"], Float[Tensor, "batch head seq"]]:
    """The operation of `reference.attention`, for float32 and bfloat16.

    q, k and v may be views of larger buffers. A tensor is copied only if its last axis is not
    contiguous. z is in memory as [batch seq head head_dim], the order the output projection reads.
    """
    check_attention(q, k, v, sinks, padding, starts)
    batch, heads, seq, head_dim = q.shape
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    sinks, padding = sinks.contiguous(), None if padding is None else padding.contiguous()
    starts = None if starts is None else starts.expand(batch, seq).int().contiguous()
    z = q.new_empty(batch, seq, heads, head_dim)
    lse = q.new_empty(batch, heads, seq, dtype=torch.float32)
    if k.shape[2] == 0:
        z.zero_()
        lse.copy_(sinks[:, None].expand_as(lse))
        return z.transpose(1, 2), lse
    for launch in make_launches(q, k, v, sinks, z, lse, window, padding, later, starts):
        launch()
    return z.transpose(1, 2), lse

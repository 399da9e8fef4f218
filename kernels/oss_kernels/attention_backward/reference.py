"""Gradients of grouped-query attention with sinks, in plain torch.

With scores s = q·k / sqrt(head_dim), lse = log(sum of e^s and e^sink) and shares p = e^(s - lse),
attention computes z = sum of p v. Given dz, the gradient of a loss by z:

    dv    = sum over queries of p dz
    dp    = dz · v
    ds    = p (dp - D), where D = dz · z is the mean of dp under the shares (the sink's dp is 0)
    dq    = sum over keys of ds k / sqrt(head_dim)
    dk    = sum over queries of ds q / sqrt(head_dim)
    dsink = - sum over queries of e^(sink - lse) D

dk and dv also sum over the query heads of a kv head. p is computed again from lse, which includes
the sink, so a forward pass need not store it. Source: arXiv 2205.14135, appendix B.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_kernels.attention_backward.visible import find_first_keys

Gradients = tuple[
    Float[Tensor, "batch head seq head_dim"],
    Float[Tensor, "batch kv_head seq head_dim"],
    Float[Tensor, "batch kv_head seq head_dim"],
    Float[Tensor, "head"],
]


def multiply_rows(
    dz: Float[Tensor, "batch head seq head_dim"], z: Float[Tensor, "batch head seq head_dim"]
) -> Float[Tensor, "batch head seq"]:
    """D = dz · z, in float32 or float64."""
    wide = torch.float64 if z.dtype == torch.float64 else torch.float32
    return (dz.to(wide) * z.to(wide)).sum(-1)


def sum_sink_gradient(
    sinks: Float[Tensor, "head"],
    lse: Float[Tensor, "batch head seq"],
    mean: Float[Tensor, "batch head seq"],
) -> Float[Tensor, "head"]:
    """dsink from lse and D. A disabled sink (-inf) has the gradient zero."""
    base = lse.masked_fill(lse.isneginf(), 0)  # -inf - -inf would be NaN
    share = (sinks.to(lse.dtype)[:, None] - base).exp()
    return -(share * mean).sum((0, 2)).to(sinks.dtype)


def attention_backward(
    q: Float[Tensor, "batch head seq head_dim"],
    k: Float[Tensor, "batch kv_head seq head_dim"],
    v: Float[Tensor, "batch kv_head seq head_dim"],
    sinks: Float[Tensor, "head"],
    z: Float[Tensor, "batch head seq head_dim"],
    lse: Float[Tensor, "batch head seq"],
    dz: Float[Tensor, "batch head seq head_dim"],
    *,
    window: int | None = None,
    starts: Int[Tensor, "#batch seq"] | None = None,
) -> Gradients:
    """(dq, dk, dv, dsinks), each in the dtype of its tensor.

    z and lse are the results of `attention.reference.attention` with the same arguments. There are
    as many keys as queries: query i is at slot i.

    Computed in float32, or float64 for float64 q. Scores are [batch head seq seq] here.
    """
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    (batch, heads, seq, head_dim), kv_heads = q.shape, k.shape[1]
    scale = head_dim**-0.5

    def stack(x: Tensor) -> Tensor:
        """The query heads of a kv head, stacked, to sum over all of them in one product."""
        return x.to(wide).reshape(batch, kv_heads, -1, x.shape[-1])

    first = find_first_keys(batch, seq, window, starts, q.device)
    slot = torch.arange(seq, device=q.device)
    visible = (slot <= slot[:, None]) & (slot >= first[:, :, None])
    keys, values = k.to(wide), v.to(wide)

    mean = multiply_rows(dz, z)
    scores = (stack(q) * scale @ keys.mT).view(batch, heads, seq, seq)
    shares = (scores - lse.masked_fill(lse.isneginf(), 0)[..., None]).exp()
    shares = shares.masked_fill(~visible[:, None], 0)
    dshares = (stack(dz) @ values.mT).view_as(shares)
    dscores = shares * (dshares - mean[..., None])

    dq = (stack(dscores) @ keys * scale).view(q.shape)
    dk = stack(dscores).mT @ stack(q) * scale
    dv = stack(shares).mT @ stack(dz)
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), sum_sink_gradient(sinks, lse, mean)

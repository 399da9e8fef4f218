"""Grouped-query attention with sinks in plain torch: causal, over a window or over every key.

A sink is one learned logit per query head. It takes part in the softmax but has no value, and it is
not scaled. The arithmetic follows openai/gpt-oss, with the softmax in float32 as in
`oss_lab.model.attention`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_kernels.attention.shared import fold, unfold


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
    """(z, lse): the values averaged with softmax weights, and the log of the softmax's denominator.

    The softmax is over q·k / sqrt(head_dim) of the visible keys and the sink.

    Query i is at key slot `key - seq + i + later`. It sees that slot and all earlier ones, or with
    a `window` only the last `window` of them, including its own. The first `padding` slots of a
    batch row are not tokens, and no query sees them. `starts` is the first slot that each query may
    see: that of its sample's first token, if samples share a row. Query head h reads kv head
    h // (head / kv_head).

    The keys may be one span of a longer sequence: `later` is the number of key slots after the
    span, which other calls attend to. A query may then be after the last key of this span.
    `merge.merge` combines the results of the spans. A batch of queries may share one row of keys:
    k and v [1 kv_head key head_dim] are not copied.

    lse is the natural logarithm of the sum of exponentials, including the sink's. A query that sees
    no key has z = 0 and lse = its sink. A sink of -inf disables the sink; a query without keys then
    has z = 0 and lse = -inf.

    Computed in float32, or float64 for float64 q. z has q's dtype; lse is not rounded.
    """
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    kv_heads, keys = k.shape[1:3]
    shape, is_shared = q.shape, starts is None and k.shape[0] == 1 != q.shape[0]
    if is_shared:
        q, sinks, padding = fold(q, sinks, padding, kv_heads)
    elif padding is not None:
        padding = padding[:, None]
    batch, heads, seq, head_dim = q.shape
    stack = (batch, kv_heads, heads // kv_heads * seq)  # the query heads of a kv head, stacked

    slot = torch.arange(keys, device=q.device)
    distance = torch.arange(keys - seq, keys, device=q.device)[:, None] + later - slot
    visible = distance >= 0
    if window is not None:
        visible &= distance < window
    visible = visible[None, None]
    if padding is not None:
        visible = visible & (slot >= padding[..., None, None])
    if starts is not None:
        visible = visible & (slot >= starts[:, None, :, None])

    stacked = (q.to(wide) * head_dim**-0.5).reshape(*stack, head_dim)
    scores = (stacked @ k.to(wide).transpose(-1, -2)).view(*q.shape[:3], keys)
    scores = scores.masked_fill(~visible, -torch.inf)
    sink = sinks.to(wide).view(1, -1, 1, 1).expand(*q.shape[:3], 1)
    logits = torch.cat((scores, sink), dim=-1)
    lse = logits.logsumexp(dim=-1)
    nothing = lse.isneginf()[..., None]  # neither key nor sink: the softmax is empty
    shares = logits.softmax(dim=-1).masked_fill(nothing, 0)[..., :-1]
    z = shares.reshape(*stack, keys) @ v.to(wide)
    z = z.view(q.shape).to(q.dtype)
    return (unfold(z, kv_heads, shape), unfold(lse, kv_heads, shape[:3])) if is_shared else (z, lse)

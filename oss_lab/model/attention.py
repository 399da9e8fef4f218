"""Grouped-query attention with a learned sink per head and, on sliding layers, a window.

A sink is one logit per query head that joins the softmax and has no value: its share goes to no
token, so a row of the pattern sums to less than one. It is not scaled and not rotated, and
every layer has it. A sliding layer sees `window` keys, the query's own included.

Scores [batch head seq key] end at the last new token of every row: the last key is its own, the
one before it is the token before, and a shorter row has empty keys at its left.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from oss_lab.config import ModelConfig
from oss_lab.model.hook import LayerHook
from oss_lab.model.norm import RMSNorm
from oss_lab.model.past import Span
from oss_lab.model.rope import Rotation, rotate

Extend = Callable[[Tensor, Tensor], Sequence[Span]]
"""(k, v) of the new tokens -> the spans of all keys that a layer sees."""


def hidden_keys(
    positions: Int[Tensor, "rows seq"], keys: int, window: int | None
) -> Bool[Tensor, "rows 1 seq key"]:
    """Which of the last `keys` keys each new token may not attend to.

    A token at position p sees the keys at positions 0 to p, with a window only the last `window` of
    these. Padding has negative positions: it sees nothing and nothing sees it. A query that sees
    nothing gives its whole mass to the sink.
    """
    back = torch.arange(keys - 1, -1, -1, device=positions.device)
    key = (positions[:, -1:] - back)[:, None, None]
    query = positions[:, None, :, None]
    first = 0 if window is None else (query - window + 1).clamp(min=0)
    return (key < first) | (key > query)


class Attention(nn.Module):
    """Norm, q/k/v, rotation, attention over past and new keys, output; without the residual."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.head_dim = config.head_dim
        query_width = self.heads * self.head_dim
        key_width = self.kv_heads * self.head_dim
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.sinks = nn.Parameter(torch.zeros(self.heads))
        self.qkv = nn.Linear(config.hidden_size, query_width + 2 * key_width)
        self.out = nn.Linear(query_width, config.hidden_size)

    def forward(
        self,
        x: Float[Tensor, "batch seq hidden"],
        by: Rotation,
        keys: int,
        hidden: Bool[Tensor, "rows 1 seq key"] | None,
        extend: Extend,
        hook: LayerHook,
    ) -> Float[Tensor, "batch seq hidden"]:
        normed = hook("attn.norm", self.norm(x))
        heads = self.qkv(normed).view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)
        q, k, v = heads.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        q, k, v = hook("attn.q", q), hook("attn.k", k), hook("attn.v", v)
        q, k = hook("attn.q_rot", rotate(q, by)), hook("attn.k_rot", rotate(k, by))
        spans = extend(k, v)

        # Scores are the largest tensors here: q is scaled instead, and the mask written in place.
        scores = dot(q.float() * self.head_dim**-0.5, spans, keys)
        if hidden is not None:
            scores.masked_fill_(hidden, -torch.inf)
        scores = hook("attn.scores", scores)
        sink = hook("attn.sink", self.sinks.float().expand(x.shape[0], -1))
        sink = sink.view(*sink.shape, 1, 1).expand(*q.shape[:3], 1)
        shares = torch.cat((scores, sink), dim=-1).softmax(dim=-1)
        pattern = hook("attn.pattern", shares[..., :-1])
        hook("attn.sink_mass", shares[..., -1])

        z = hook("attn.z", mix(pattern, spans).to(x.dtype))
        return hook("attn.out", self.out(z.transpose(1, 2).flatten(2)))


def dot(
    q: Float[Tensor, "batch head seq head_dim"], spans: Sequence[Span], keys: int
) -> Float[Tensor, "batch head seq key"]:
    """The product of each query with each of the last `keys` keys, in float32."""
    if is_whole(spans, q.shape[0]):
        return by_kv_head(q, spans[0].keys.float().transpose(-1, -2))
    scores = q.new_zeros(*q.shape[:3], keys)
    for span in spans:
        end = keys - span.later
        at = slice(span.first, span.last), ..., slice(end - span.keys.shape[2], end)
        scores[at] = by_kv_head(q[span.first : span.last], span.keys.float().transpose(-1, -2))
    return scores


def mix(
    pattern: Float[Tensor, "batch head seq key"], spans: Sequence[Span]
) -> Float[Tensor, "batch head seq head_dim"]:
    """The values, weighted by the pattern, in float32."""
    if is_whole(spans, pattern.shape[0]):
        return by_kv_head(pattern, spans[0].values.float())
    keys = pattern.shape[-1]
    z = pattern.new_zeros(*pattern.shape[:3], spans[0].values.shape[-1])
    for span in spans:
        end = keys - span.later
        part = pattern[span.first : span.last, ..., end - span.keys.shape[2] : end]
        z[span.first : span.last] += by_kv_head(part, span.values.float())
    return z


def is_whole(spans: Sequence[Span], batch: int) -> bool:
    """Whether one span holds all keys of all rows."""
    return len(spans) == 1 and spans[0].later == 0 and spans[0].last == batch


def by_kv_head(
    left: Float[Tensor, "row head seq inner"], right: Float[Tensor, "shared kv_head inner outer"]
) -> Float[Tensor, "row head seq outer"]:
    """left @ right, where the query heads of a group share a kv head, and rows may share one row
    of `right`; nothing of `right` is copied."""
    rows, heads, seq, inner = left.shape
    shared, kv_heads = right.shape[:2]
    if shared == rows:
        stacked = left.reshape(rows, kv_heads, -1, inner)  # a group's heads, one after the other
        return (stacked @ right).view(rows, heads, seq, -1)
    stacked = left.reshape(rows, kv_heads, -1, inner).transpose(0, 1).reshape(kv_heads, -1, inner)
    product = (stacked @ right[0]).view(kv_heads, rows, -1, seq, right.shape[-1])
    return product.transpose(0, 1).flatten(1, 2)

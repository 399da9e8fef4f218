"""Attention: how a token collects information from earlier tokens.

Attention has several heads side by side. In each head a token has three vectors, computed from its
residual stream: a query (what it looks for), a key (what it is found by) and a value (what it
passes on). The product of a query and a key is a score. A softmax turns the scores of a query into
shares, its attention pattern. The head's output is the sum of the values, each times its share.

gpt-oss has three special features:

- Grouped queries: several query heads share one key and value head, which makes the cache smaller.
- Sinks: each query head has one learned logit, its sink, that takes part in the softmax. It has no
  key, position or value. A head that finds nothing to read can give its attention to the sink.
- Sliding window: every other layer sees only the newest `window` keys (`ModelConfig.layer_types`).

`Attention.forward` is the whole computation; each of its steps is a function in this file.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from oss_lab.config import ModelConfig
from oss_lab.model.hook import LayerHook
from oss_lab.model.norm import Normalize, RMSNorm, rms_norm
from oss_lab.model.past import Span
from oss_lab.model.rope import rotate

Extend = Callable[[Tensor, Tensor], Sequence[Span]]
"""Stores k and v of the new tokens and returns all keys and values that the layer reads."""
Rotate = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`rotate`, or another function of the same arguments."""
Score = Callable[[Tensor, Tensor], Tensor]
"""`attention_scores`, or another function of the same arguments."""
SinkSoftmax = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""`softmax_with_sink`, or another function of the same arguments."""
VisibleKeys = Callable[[Tensor, Tensor, int | None], Tensor]
"""`visible_keys`, or another function of the same arguments."""


def attention_scores(
    q: Float[Tensor, "batch head seq head_dim"], k: Float[Tensor, "rows kv_head key head_dim"]
) -> Float[Tensor, "batch head seq key"]:
    """The product of each query and each key, divided by sqrt(head_dim).

    Query head j uses the keys of kv head j // (head / kv_head). The scores are the largest tensors
    of attention, so q is divided instead.
    """
    return query_key_scores(q * q.shape[-1] ** -0.5, k)


def softmax_with_sink(
    scores: Float[Tensor, "batch head seq key"], sinks: Float[Tensor, "batch head"]
) -> tuple[Float[Tensor, "batch head seq key"], Float[Tensor, "batch head seq"]]:
    """The shares of the keys, exp(score) / (sum of exp(score) + exp(sink)), and that of the sink.

    The sink is one more logit in the softmax: not scaled, not rotated, the same for every query. A
    query's shares and its sink's share sum to one. A score of -inf has share 0; a query with no
    visible key gives everything to its sink. A sink of -inf leaves an ordinary softmax.
    """
    column = sinks[:, :, None, None].expand(*scores.shape[:-1], 1)
    shares = torch.cat((scores, column), dim=-1).softmax(dim=-1)
    return shares[..., :-1], shares[..., -1]


class Attention(nn.Module):
    """The attention of one layer; its output is added to the residual stream by `Block`."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        rms_norm: Normalize = rms_norm,
        rotate: Rotate = rotate,
        attention_scores: Score = attention_scores,
        softmax_with_sink: SinkSoftmax = softmax_with_sink,
    ) -> None:
        super().__init__()
        self.rotate, self.attention_scores = rotate, attention_scores
        self.softmax_with_sink = softmax_with_sink
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.head_dim = config.head_dim
        query_width = self.heads * self.head_dim
        key_width = self.kv_heads * self.head_dim
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, rms_norm)
        self.sinks = nn.Parameter(torch.zeros(self.heads))
        self.qkv = nn.Linear(config.hidden_size, query_width + 2 * key_width)
        self.out = nn.Linear(query_width, config.hidden_size)

    def forward(
        self,
        x: Float[Tensor, "batch seq hidden"],
        cos: Float[Tensor, "rows 1 seq head_dim"],
        sin: Float[Tensor, "rows 1 seq head_dim"],
        visible: Bool[Tensor, "rows 1 seq key"] | None,
        extend: Extend,
        hook: LayerHook,
    ) -> Float[Tensor, "batch seq hidden"]:
        """What attention adds to the residual stream `x`; `visible` is None if no key is hidden."""
        # Query, key and value of each new token: [batch head seq head_dim], [batch kv_head ...].
        normed = hook("attn.norm", self.norm(x))
        heads = self.qkv(normed).view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)
        q, k, v = heads.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        q, k, v = hook("attn.q", q), hook("attn.k", k), hook("attn.v", v)
        q = hook("attn.q_rot", self.rotate(q, cos, sin))
        k = hook("attn.k_rot", self.rotate(k, cos, sin))
        spans = extend(k, v)  # keys and values of the earlier and the new tokens

        # Scores are the largest tensors here, so those of hidden keys are overwritten in place.
        scores = score_spans(q.float(), spans, self.attention_scores)
        if visible is not None:
            scores.masked_fill_(~visible, -torch.inf)
        scores = hook("attn.scores", scores)
        sinks = hook("attn.sink", self.sinks.float().expand(x.shape[0], -1))
        pattern, sink_mass = self.softmax_with_sink(scores, sinks)
        pattern = hook("attn.pattern", pattern)
        hook("attn.sink_mass", sink_mass)

        z = hook("attn.z", mix_spans(pattern, spans).to(x.dtype))
        return hook("attn.out", self.out(z.transpose(1, 2).flatten(2)))


def visible_keys(
    query_positions: Int[Tensor, "rows seq"],
    key_positions: Int[Tensor, "rows key"],
    window: int | None,
) -> Bool[Tensor, "rows seq key"]:
    """Which keys each query may attend to: its own and earlier ones, if the window reaches them.

    A later key is hidden. With a window, a key `window` or more tokens back is hidden, so a query
    sees at most `window` keys, its own included. A key at a negative position is padding and is
    hidden; a query that is padding sees no key, and its sink gets all of its attention.
    """
    back = query_positions[:, :, None] - key_positions[:, None, :]  # how far back the key is
    visible = (back >= 0) & (key_positions >= 0)[:, None, :]
    return visible if window is None else visible & (back < window)


def query_key_scores(
    q: Float[Tensor, "batch head seq head_dim"], k: Float[Tensor, "rows kv_head key head_dim"]
) -> Float[Tensor, "batch head seq key"]:
    """The product of each query and each key: einsum("bghsd,bgtd->bghst", q, k).

    The letters: b batch, g group (one kv head and its query heads), h head within the group,
    s query, t key, d head_dim. Query head j is in group j // (head / kv_head).
    """
    return matmul_by_group(q, k.transpose(-1, -2))


def mix_values(
    pattern: Float[Tensor, "batch head seq key"], v: Float[Tensor, "rows kv_head key head_dim"]
) -> Float[Tensor, "batch head seq head_dim"]:
    """The sum of the values, each times its share: einsum("bghst,bgtd->bghsd", pattern, v)."""
    return matmul_by_group(pattern, v)


def matmul_by_group(
    left: Float[Tensor, "batch head seq inner"], right: Float[Tensor, "rows kv_head inner outer"]
) -> Float[Tensor, "batch head seq outer"]:
    """Each query head times the matrix of its group: einsum("bghsi,bgio->bghso", left, right).

    The heads of a group are stacked into one matrix, so `right` is not copied for each head. If
    all rows of a batch share the same keys, `right` has one row, which is not copied either.
    einsum gives the same result, but takes about 10 microseconds longer per call on a CPU. In nano
    that is about 5% of the time per token.
    """
    batch, heads, seq, inner = left.shape
    left = left.reshape(batch, right.shape[1], -1, inner)  # b g (h s) i
    if len(right) == batch:
        product = left @ right
    else:
        product = torch.einsum("bgmi,gio->bgmo", left, right[0])
    return product.reshape(batch, heads, seq, -1)


def score_spans(
    q: Float[Tensor, "batch head seq head_dim"],
    spans: Sequence[Span],
    attention_scores: Score = attention_scores,
) -> Float[Tensor, "batch head seq key"]:
    """`attention_scores` for the keys of all spans, in float32.

    The last key of every row is its newest token. A shorter row has zeros on the left, which
    the caller must mask.
    """
    if covers_batch(spans, len(q)):
        return attention_scores(q, spans[0].keys.float())
    keys = max(span.later + span.keys.shape[2] for span in spans)
    scores = q.new_zeros(*q.shape[:3], keys)
    for span in spans:
        part = attention_scores(q[span.rows], span.keys.float())
        scores[span.rows, ..., span.columns(keys)] = part
    return scores


def mix_spans(
    pattern: Float[Tensor, "batch head seq key"], spans: Sequence[Span]
) -> Float[Tensor, "batch head seq head_dim"]:
    """`mix_values` for the values of all spans, in float32."""
    if covers_batch(spans, len(pattern)):
        return mix_values(pattern, spans[0].values.float())
    z = pattern.new_zeros(*pattern.shape[:3], spans[0].values.shape[-1])
    for span in spans:
        part = pattern[span.rows, ..., span.columns(pattern.shape[-1])]
        z[span.rows] += mix_values(part, span.values.float())
    return z


def covers_batch(spans: Sequence[Span], batch: int) -> bool:
    """Whether there is a single span, with all keys of all rows."""
    return len(spans) == 1 and spans[0].later == 0 and spans[0].last == batch

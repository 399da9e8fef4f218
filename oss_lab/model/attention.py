"""Grouped-query attention with a learnt sink per head and, on sliding layers, a window.

A sink is one logit per query head that joins the softmax and has no value: what it takes, no
token gets, so a row of the pattern sums to less than one. It is not scaled and not rotated, and
every layer has it. A sliding layer sees `window` keys, the query's own included.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from oss_lab.config import ModelConfig
from oss_lab.engine.cache import LayerCache
from oss_lab.model.norm import RMSNorm
from oss_lab.model.rope import Rotation, rotate
from oss_lab.model.tap import Tap


def visible_keys(
    seq: int,
    keys: int,
    window: int | None,
    padding: Int[Tensor, "batch"] | None,
    device: torch.device,
) -> Bool[Tensor, "rows 1 seq key"]:
    """Which of the last `keys` slots each of the last `seq` slots may attend to.

    `padding`, [batch]: how many of these keys at the left are no tokens, per row; rows is 1
    without it. A query that sees nothing gives its whole mass to the sink.
    """
    key = torch.arange(keys, device=device)
    distance = torch.arange(keys - seq, keys, device=device)[:, None] - key
    visible = distance >= 0
    if window is not None:
        visible &= distance < window
    visible = visible[None, None]
    return visible if padding is None else visible & (key >= padding[:, None, None, None])


class Attention(nn.Module):
    """Norm, q/k/v, rotation, attention over the cache, output projection; without the residual."""

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
        visible: Bool[Tensor, "rows 1 seq key"],
        cache: LayerCache,
        tap: Tap,
    ) -> Float[Tensor, "batch seq hidden"]:
        normed = tap("attn.norm", self.norm(x))
        heads = self.qkv(normed).view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)
        q, k, v = heads.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        q, k, v = tap("attn.q", q), tap("attn.k", k), tap("attn.v", v)
        q, k = tap("attn.q_rot", rotate(q, by)), tap("attn.k_rot", rotate(k, by))
        keys, values = cache.append(k, v, visible.shape[-1])

        # Scores are the largest tensors here: q is scaled instead, and the mask written in place.
        scores = (self._grouped(q).float() * self.head_dim**-0.5) @ keys.float().transpose(-1, -2)
        scores = scores.view(*q.shape[:3], -1).masked_fill_(~visible, -torch.inf)
        scores = tap("attn.scores", scores)
        sink = tap("attn.sink", self.sinks.float()).view(1, -1, 1, 1).expand(*q.shape[:3], 1)
        shares = torch.cat((scores, sink), dim=-1).softmax(dim=-1)
        pattern = tap("attn.pattern", shares[..., :-1])
        tap("attn.sink_mass", shares[..., -1])

        z = (self._grouped(pattern) @ values.float()).view(q.shape).to(x.dtype)
        z = tap("attn.z", z)
        return tap("attn.out", self.out(z.transpose(1, 2).flatten(2)))

    def _grouped(
        self, per_head: Float[Tensor, "batch head seq axis"]
    ) -> Float[Tensor, "batch kv_head group_seq axis"]:
        """Stack the query heads that share a key-value head, so that keys are never repeated."""
        batch, _, _, axis = per_head.shape
        return per_head.reshape(batch, self.kv_heads, -1, axis)

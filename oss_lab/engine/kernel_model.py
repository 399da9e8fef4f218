"""The same model computed by kernels: a fused step where `Transformer` spells every step out.

Weights, caches and results are those of `Transformer`; only the rounding inside a step differs.
Taps are served where a step hands something out, and changes where a later step takes it up again
(`SHOWN_BY_KERNELS` and `TAKEN_BY_KERNELS` in `oss_lab/hooks/points.py`); who wants more gets the
spelt-out forward, since a fused step has no inside.
"""

from typing import cast

from jaxtyping import Float, Int
from oss_kernels.backends import Backend
from oss_kernels.experts.weights import ExpertWeights
from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.engine.cache import KVCache, LayerCache
from oss_lab.hooks.points import SHOWN_BY_KERNELS, TAKEN_BY_KERNELS
from oss_lab.model.attention import Attention
from oss_lab.model.experts import PackedExperts
from oss_lab.model.moe import MixtureOfExperts
from oss_lab.model.norm import RMSNorm
from oss_lab.model.rope import Rotation, rotate, rotation
from oss_lab.model.tap import Tap, Taps, untapped
from oss_lab.model.transformer import Block, Transformer


class KernelTransformer(Transformer):
    """gpt-oss with packed experts, its operations computed by `kernels`."""

    def __init__(self, config: ModelConfig, kernels: Backend) -> None:
        super().__init__(config)
        self.kernels = kernels

    def forward(
        self,
        tokens: Int[Tensor, "batch seq"],
        cache: KVCache | None = None,
        *,
        last: int | None = None,
        taps: Taps = untapped,
    ) -> Float[Tensor, "batch kept vocab"]:
        """As `Transformer.forward`."""
        if not self.serves(taps):
            return super().forward(tokens, cache, last=last, taps=taps)
        batch, seq = tokens.shape
        cache = KVCache(self.config, batch) if cache is None else cache
        tap = taps(None)
        x = tap("embed", self.embedding(tokens))
        by = rotation(self.config, cache.positions(seq, tokens.device), x.dtype)
        for n in range(len(self.block)):
            block, within = cast(Block, self.block[n]), taps(n)
            window = self.config.window(n)
            reach = cache.reach(seq, window)
            padding = cache.padding_within(reach, seq)
            x = within("resid.pre", x)
            x = self._attend(x, block.attn, by, cache.layers[n], reach, window, padding, within)
            x = within("resid.mid", x)
            x = within("resid.post", x + self._ask_experts(x, block.mlp, within))
        cache.advance(seq)
        kept = x if last is None else x[:, seq - min(last, seq) :]
        normed = tap("out.norm", self._norm(kept, self.norm))
        logits = self.kernels.linear(normed.flatten(0, 1), self.unembedding.weight, None)
        return tap("out.logits", logits.view(*kept.shape[:2], self.config.vocab_size))

    def computed_by(self, taps: Taps) -> str:
        return self.kernels.name if self.serves(taps) else super().computed_by(taps)

    def serves(self, taps: Taps) -> bool:
        """Whether fused steps hand out all that these taps read and take up all they write."""
        return SHOWN_BY_KERNELS.issuperset(taps.points) and TAKEN_BY_KERNELS.issuperset(taps.writes)

    def _norm(self, x: Float[Tensor, "batch seq hidden"], norm: RMSNorm) -> Float[Tensor, "..."]:
        return self.kernels.rms_norm(x.flatten(0, 1), norm.scale, norm.eps).view(x.shape)

    def _attend(
        self,
        x: Float[Tensor, "batch seq hidden"],
        attn: Attention,
        by: Rotation,
        cache: LayerCache,
        reach: int,
        window: int | None,
        padding: Int[Tensor, "batch"] | None,
        tap: Tap,
    ) -> Float[Tensor, "batch seq hidden"]:
        """The residual stream plus attention."""
        normed = tap("attn.norm", self._norm(x, attn.norm)).flatten(0, 1)
        heads = self.kernels.linear(normed, attn.qkv.weight, attn.qkv.bias)
        heads = heads.view(*x.shape[:2], -1, attn.head_dim).transpose(1, 2)
        q, k, v = heads.split((attn.heads, attn.kv_heads, attn.kv_heads), dim=1)
        q, k, v = tap("attn.q", q), tap("attn.k", k), tap("attn.v", v)
        q, k = tap("attn.q_rot", rotate(q, by)), tap("attn.k_rot", rotate(k, by))
        keys, values = cache.append(k, v, reach)
        sinks = tap("attn.sink", attn.sinks.float())
        z, lse = self.kernels.attention(q, keys, values, sinks, window=window, padding=padding)
        tap("attn.sink_mass", (sinks[:, None] - lse).exp())
        z = tap("attn.z", z).transpose(1, 2).flatten(2).flatten(0, 1)
        residual = x.flatten(0, 1)
        return self.kernels.linear(z, attn.out.weight, attn.out.bias, residual).view(x.shape)

    def _ask_experts(
        self, x: Float[Tensor, "batch seq hidden"], mlp: MixtureOfExperts, tap: Tap
    ) -> Float[Tensor, "batch seq hidden"]:
        """The experts' contribution to the residual stream."""
        normed = tap("moe.norm", self._norm(x, mlp.norm)).flatten(0, 1)
        gate = mlp.gate
        ids, weights, logits = self.kernels.router(normed, gate.weight, gate.bias, mlp.slots)
        tap("moe.router_logits", logits.view(*x.shape[:2], -1))
        ids = tap("moe.expert_ids", ids.view(*x.shape[:2], -1)).flatten(0, 1)
        weights = tap("moe.expert_weights", weights.view(*x.shape[:2], -1)).flatten(0, 1)
        out = self.kernels.expert_mlp(
            normed, ids, weights, expert_weights(mlp), alpha=mlp.alpha, limit=mlp.limit
        )
        return tap("moe.out", out.view(x.shape))


def expert_weights(mlp: MixtureOfExperts) -> ExpertWeights:
    """The packed experts of a layer, as kernels take them."""
    gate_up, down = mlp.mlp1_weight, mlp.mlp2_weight
    assert isinstance(gate_up, PackedExperts)
    assert isinstance(down, PackedExperts)
    return ExpertWeights(
        gate_up.blocks, gate_up.scales, mlp.mlp1_bias, down.blocks, down.scales, mlp.mlp2_bias
    )

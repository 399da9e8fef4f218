"""The same model computed by kernels: a fused step where `Transformer` spells every step out.

Weights, caches and results are those of `Transformer`; only the rounding inside a step differs.
Who wants to look inside (`taps`) gets the spelt-out forward, since a fused step has no inside.
"""

from typing import cast

from jaxtyping import Float, Int
from oss_kernels.backends import Backend
from oss_kernels.experts.weights import ExpertWeights
from torch import Tensor

from oss_lab.cache import KVCache, LayerCache
from oss_lab.config import ModelConfig
from oss_lab.model.attention import Attention
from oss_lab.model.experts import PackedExperts
from oss_lab.model.moe import MixtureOfExperts
from oss_lab.model.rope import Rotation, rotate, rotation
from oss_lab.model.tap import Taps, untapped
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
        if taps is not untapped:
            return super().forward(tokens, cache, last=last, taps=taps)
        batch, seq = tokens.shape
        cache = KVCache(self.config, batch) if cache is None else cache
        x = self.embedding(tokens)
        by = rotation(self.config, cache.positions(seq, tokens.device), x.dtype)
        for n in range(len(self.block)):
            block = cast(Block, self.block[n])
            window = self.config.window(n)
            reach = cache.reach(seq, window)
            padding = cache.padding_within(reach, seq)
            x = self._attend(x, block.attn, by, cache.layers[n], reach, window, padding)
            x = self._ask_experts(x, block.mlp)
        cache.advance(seq)
        kept = x if last is None else x[:, seq - min(last, seq) :]
        normed = self.kernels.rms_norm(kept.flatten(0, 1), self.norm.scale, self.norm.eps)
        logits = self.kernels.linear(normed, self.unembedding.weight, None)
        return logits.view(*kept.shape[:2], self.config.vocab_size)

    def _attend(
        self,
        x: Float[Tensor, "batch seq hidden"],
        attn: Attention,
        by: Rotation,
        cache: LayerCache,
        reach: int,
        window: int | None,
        padding: Int[Tensor, "batch"] | None,
    ) -> Float[Tensor, "batch seq hidden"]:
        """The residual stream plus attention."""
        residual = x.flatten(0, 1)
        normed = self.kernels.rms_norm(residual, attn.norm.scale, attn.norm.eps)
        heads = self.kernels.linear(normed, attn.qkv.weight, attn.qkv.bias)
        heads = heads.view(*x.shape[:2], -1, attn.head_dim).transpose(1, 2)
        q, k, v = heads.split((attn.heads, attn.kv_heads, attn.kv_heads), dim=1)
        keys, values = cache.append(rotate(k, by), v, reach)
        z, _ = self.kernels.attention(
            rotate(q, by), keys, values, attn.sinks, window=window, padding=padding
        )
        z = z.transpose(1, 2).flatten(2).flatten(0, 1)
        return self.kernels.linear(z, attn.out.weight, attn.out.bias, residual).view(x.shape)

    def _ask_experts(
        self, x: Float[Tensor, "batch seq hidden"], mlp: MixtureOfExperts
    ) -> Float[Tensor, "batch seq hidden"]:
        """The residual stream plus the experts."""
        normed = self.kernels.rms_norm(x.flatten(0, 1), mlp.norm.scale, mlp.norm.eps)
        ids, weights = self.kernels.router(normed, mlp.gate.weight, mlp.gate.bias, mlp.slots)
        out = self.kernels.expert_mlp(
            normed, ids, weights, expert_weights(mlp), alpha=mlp.alpha, limit=mlp.limit
        )
        return x + out.view(x.shape)


def expert_weights(mlp: MixtureOfExperts) -> ExpertWeights:
    """The packed experts of a layer, as kernels take them."""
    gate_up, down = mlp.mlp1_weight, mlp.mlp2_weight
    assert isinstance(gate_up, PackedExperts)
    assert isinstance(down, PackedExperts)
    return ExpertWeights(
        gate_up.blocks, gate_up.scales, mlp.mlp1_bias, down.blocks, down.scales, mlp.mlp2_bias
    )

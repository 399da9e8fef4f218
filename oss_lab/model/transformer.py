"""The whole model: embedding, layers of attention and experts on a residual stream, unembedding.

Parameters carry the names of the original checkpoint (`block.0.attn.qkv.weight`), so that loading
is a map from name to tensor. There is no dropout, no tied embedding and no logit cap.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from oss_lab.config import ModelConfig
from oss_lab.engine.cache import KVCache, LayerCache
from oss_lab.model.attention import Attention, visible_keys
from oss_lab.model.experts import PackedExperts
from oss_lab.model.moe import BankFactory, MixtureOfExperts
from oss_lab.model.norm import RMSNorm
from oss_lab.model.rope import Rotation, rotation
from oss_lab.model.tap import Tap, Taps, untapped


class Block(nn.Module):
    """One layer: the residual stream plus attention, plus experts."""

    def __init__(self, config: ModelConfig, bank: BankFactory) -> None:
        super().__init__()
        self.attn = Attention(config)
        self.mlp = MixtureOfExperts(config, bank)

    def forward(
        self,
        x: Float[Tensor, "batch seq hidden"],
        by: Rotation,
        visible: Bool[Tensor, "rows 1 seq key"],
        cache: LayerCache,
        tap: Tap,
    ) -> Float[Tensor, "batch seq hidden"]:
        x = tap("resid.pre", x)
        x = tap("resid.mid", x + self.attn(x, by, visible, cache, tap))
        return tap("resid.post", x + self.mlp(x, tap))


class Transformer(nn.Module):
    """gpt-oss at any size.

    `bank` makes the expert matrices: packed MXFP4 (default) or trainable ones.
    """

    def __init__(self, config: ModelConfig, bank: BankFactory = PackedExperts) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.block = nn.ModuleList(Block(config, bank) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.unembedding = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(
        self,
        tokens: Int[Tensor, "batch seq"],
        cache: KVCache | None = None,
        *,
        last: int | None = None,
        taps: Taps = untapped,
    ) -> Float[Tensor, "batch kept vocab"]:
        """Logits of the last `last` positions (None: all; 0: none, the cache is filled).

        Without a cache the tokens are a whole sequence; with one they continue it, and their keys
        and values are appended. Logits come in the weights' dtype.
        """
        batch, seq = tokens.shape
        cache = KVCache(self.config, batch) if cache is None else cache
        tap = taps(None)
        x = tap("embed", self.embedding(tokens))
        by = rotation(self.config, cache.positions(seq, tokens.device), x.dtype)
        visible = {}
        for window in {self.config.window(n) for n in range(len(self.block))}:
            keys = cache.reach(seq, window)
            padding = cache.padding_within(keys, seq)
            visible[window] = visible_keys(seq, keys, window, padding, tokens.device)
        for n, block in enumerate(self.block):
            x = block(x, by, visible[self.config.window(n)], cache.layers[n], taps(n))
        cache.advance(seq)
        kept = x if last is None else x[:, seq - min(last, seq) :]
        normed = tap("out.norm", self.norm(kept))
        return tap("out.logits", self.unembedding(normed))

    def computed_by(self, taps: Taps) -> str:
        """Which kernels compute a forward with these taps."""
        return "reference"

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

"""The whole model: embedding, layers of attention and experts on a residual stream, unembedding.

Parameters carry the names of the original checkpoint (`block.0.attn.qkv.weight`), so loading is
a map from name to tensor. There is no dropout, no tied embedding and no logit cap.
"""

from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from oss_lab.config import ModelConfig
from oss_lab.model.attention import Attention, Extend, hidden_keys
from oss_lab.model.experts import PackedExperts
from oss_lab.model.hook import Hooks, LayerHook, in_layer, no_hooks
from oss_lab.model.moe import BankFactory, MixtureOfExperts
from oss_lab.model.norm import RMSNorm
from oss_lab.model.past import Beginning, Past
from oss_lab.model.rope import Rotation, rotation


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
        keys: int,
        hidden: Bool[Tensor, "rows 1 seq key"] | None,
        extend: Extend,
        hook: LayerHook,
    ) -> Float[Tensor, "batch seq hidden"]:
        x = hook("resid.pre", x)
        x = hook("resid.mid", x + self.attn(x, by, keys, hidden, extend, hook))
        return hook("resid.post", x + self.mlp(x, hook))


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
        past: Past | None = None,
        *,
        last: int | None = None,
        hooks: Hooks = no_hooks,
    ) -> Float[Tensor, "batch kept vocab"]:
        """Logits of the last `last` positions (None: all; 0: none, the past is extended).

        Without a past the tokens are whole sequences; with one they continue it, and become part of
        it once the forward has succeeded. Logits come in the weights' dtype.
        """
        seq = tokens.shape[1]
        past = Beginning() if past is None else past
        hook = in_layer(hooks, None)
        x = hook("embed", self.embedding(tokens))
        positions = past.positions(seq, tokens.device)
        by = rotation(self.config, positions, x.dtype)
        windows = {self.config.window(n) for n in range(len(self.block))}
        reach = {window: self.reach(past.slots(seq), seq, window) for window in windows}
        sees_all = positions.numel() == 1 and not past.is_padded  # a single new token
        hidden = {
            window: None if sees_all else hidden_keys(positions, reach[window], window)
            for window in windows
        }
        for n, block in enumerate(self.block):
            window = self.config.window(n)
            extend = partial(past.extend, n, reach=reach[window])
            x = block(x, by, reach[window], hidden[window], extend, in_layer(hooks, n))
        kept = x if last is None else x[:, seq - min(last, seq) :]
        logits = hook("out.logits", self.unembedding(hook("out.norm", self.norm(kept))))
        past.advance(seq)
        return logits

    @staticmethod
    def reach(slots: int, seq: int, window: int | None) -> int:
        """How many of the last key slots a layer reads for `seq` new tokens."""
        return slots if window is None else min(slots, seq + window - 1)

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

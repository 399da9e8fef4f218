"""The whole model: token ids go in, logits for the next token come out.

Each token id selects a row of the embedding matrix. This vector is the start of the token's
residual stream. Every layer reads the stream twice and adds to it twice: attention brings in
information from earlier tokens, then the experts process each token separately. The final norm
and the unembedding turn the stream into logits: one score per token of the vocabulary, whose
softmax is the probability of the next token.

Parameters have the names of the original checkpoint (`block.0.attn.qkv.weight`). The model has no
dropout and no cap on its logits, and embedding and unembedding are separate matrices.
"""

from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from oss_lab.config import ModelConfig
from oss_lab.errors import LabError
from oss_lab.model.attention import Attention, Extend, VisibleKeys, visible_keys
from oss_lab.model.experts import ExpertCache, MakeExperts, PackedExperts
from oss_lab.model.hook import Hooks, LayerHook, check_hooks, in_layer, no_hooks
from oss_lab.model.moe import MixtureOfExperts
from oss_lab.model.norm import RMSNorm
from oss_lab.model.parts import PUBLISHED, Parts
from oss_lab.model.past import NoPast, Past
from oss_lab.model.rope import rotation


class Block(nn.Module):
    """One layer: attention, then experts, each added to the residual stream."""

    def __init__(
        self, config: ModelConfig, make_experts: MakeExperts, parts: Parts = PUBLISHED
    ) -> None:
        super().__init__()
        self.attn = Attention(
            config,
            rms_norm=parts.rms_norm,
            rotate=parts.rotate,
            attention_scores=parts.attention_scores,
            softmax_with_sink=parts.softmax_with_sink,
        )
        self.mlp = MixtureOfExperts(
            config,
            make_experts,
            rms_norm=parts.rms_norm,
            choose_experts=parts.choose_experts,
            weigh_experts=parts.weigh_experts,
            split_gate_up=parts.split_gate_up,
            swiglu=parts.swiglu,
        )

    def forward(
        self,
        x: Float[Tensor, "batch seq hidden"],
        cos: Float[Tensor, "rows 1 seq head_dim"],
        sin: Float[Tensor, "rows 1 seq head_dim"],
        visible: Bool[Tensor, "rows 1 seq key"] | None,
        extend: Extend,
        hook: LayerHook,
    ) -> Float[Tensor, "batch seq hidden"]:
        x = hook("resid.pre", x)
        x = hook("resid.mid", x + self.attn(x, cos, sin, visible, extend, hook))
        return hook("resid.post", x + self.mlp(x, hook))


class Transformer(nn.Module):
    """gpt-oss of any size.

    `make_experts` is `PackedExperts` (MXFP4, for inference) or `DenseExperts` (for training).
    `parts` are the functions that it computes with.
    """

    def __init__(
        self,
        config: ModelConfig,
        make_experts: MakeExperts = PackedExperts,
        parts: Parts = PUBLISHED,
    ) -> None:
        super().__init__()
        self.config, self.parts, self.make_experts = config, parts, make_experts
        rows = torch.empty(config.vocab_size, config.hidden_size)
        self.embedding = nn.Embedding.from_pretrained(rows, freeze=False)
        if not rows.is_meta:  # there is nothing to draw, and trying would import torch's compiler
            self.embedding.reset_parameters()
        layers = range(config.num_hidden_layers)
        self.block = nn.ModuleList(Block(config, make_experts, parts) for _ in layers)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, parts.rms_norm)
        self.unembedding = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(
        self,
        tokens: Int[Tensor, "batch seq"],
        past: Past | None = None,
        *,
        last: int | None = None,
        hooks: Hooks = no_hooks,
    ) -> Float[Tensor, "batch last vocab"]:
        """Logits after the last `last` tokens, in the dtype of the weights.

        `last=None` gives all; `last=0` gives none and only extends the past. Without a past the
        tokens are whole sequences. With a past they continue it and are added to it.
        """
        check_call(tokens, self.config.vocab_size, last)
        check_hooks(hooks)
        seq = tokens.shape[1]
        past = NoPast() if past is None else past
        hook = in_layer(hooks, None)
        x = hook("embed", self.embedding(tokens))

        # Rotations are the same in all layers; masks are the same in layers with the same window.
        positions = past.positions(seq, tokens.device)
        parts = self.parts.yarn_frequencies, self.parts.yarn_concentration
        cos, sin = rotation(self.config, positions, x.dtype, *parts)
        windows = {self.config.window(n) for n in range(len(self.block))}
        mask, slots = self.parts.visible_keys, past.count_slots(seq)
        # Keys that the published mask hides from all new tokens are not read, and one new token
        # sees every key that is read. Another mask may show or hide any key.
        is_known = mask is visible_keys
        newest = {w: count_keys(slots, seq, w) if is_known else slots for w in windows}
        sees_all = is_known and positions.numel() == 1 and not past.is_padded
        visible = {
            w: None if sees_all else make_mask(positions, newest[w], w, mask, past.samples)
            for w in windows
        }

        for n, block in enumerate(self.block):
            window = self.config.window(n)
            extend = partial(past.extend, n, newest=newest[window])
            x = block(x, cos, sin, visible[window], extend, in_layer(hooks, n))
        x = x if last is None else x[:, seq - min(last, seq) :]
        logits = hook("out.logits", self.unembedding(hook("out.norm", self.norm(x))))
        past.advance(seq)
        return logits

    def require_whole(self, what: str) -> None:
        """Raise LabError if other processes hold some of the weights, which `what` reads."""

    def with_parts(self, parts: Parts) -> "Transformer":
        """A model that computes with other parts and shares this one's weights."""
        with torch.device("meta"):
            model = Transformer(self.config, self.make_experts, parts)
        for mine, its in zip(self.modules(), model.modules(), strict=True):
            for name, parameter in mine.named_parameters(recurse=False):
                setattr(its, name, parameter)
            for name, buffer in mine.named_buffers(recurse=False):
                setattr(its, name, buffer)
        caches: dict[ExpertCache, ExpertCache] = {}
        for mine, its in zip(self.modules(), model.modules(), strict=True):
            if isinstance(mine, PackedExperts) and isinstance(its, PackedExperts):
                # Another decoder gives other matrices. Layers that shared a cache still share one.
                new = ExpertCache(mine.cache.budget_bytes, parts.mxfp4)
                its.cache = caches.setdefault(mine.cache, new)
        return model.train(self.training)

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device


def check_call(tokens: Int[Tensor, "batch seq"], vocab_size: int, last: int | None) -> None:
    """Raise LabError for tokens that are not ids [batch seq], or for a negative `last`."""
    if not isinstance(tokens, Tensor):
        raise LabError(
            f"expected token ids as a tensor [batch seq], got {type(tokens).__name__}; write"
            " torch.tensor([ids])"
        )
    if tokens.dtype not in (torch.int64, torch.int32):
        raise LabError(f"token ids must be int64 or int32, got {tokens.dtype}")
    if tokens.ndim != 2 or not tokens.numel():
        raise LabError(
            f"expected token ids [batch seq] with at least one token, got {list(tokens.shape)}"
        )
    least, most = torch.aminmax(tokens)
    if least < 0 or most >= vocab_size:
        wrong = int(least if least < 0 else most)
        raise LabError(f"token id {wrong} is out of range; the model has ids 0 to {vocab_size - 1}")
    if last is not None and (not isinstance(last, int | np.integer) or last < 0):
        raise LabError(f"last is {last!r}; it must be None or an integer of 0 or more")


def count_keys(keys: int, seq: int, window: int | None) -> int:
    """How many keys a layer reads for `seq` new tokens: all, or with a window only the newest.

    The oldest new token is the one that looks back farthest, over window - 1 earlier keys.
    """
    return keys if window is None else min(keys, seq + window - 1)


def make_mask(
    positions: Int[Tensor, "rows seq"],
    keys: int,
    window: int | None,
    visible_keys: VisibleKeys = visible_keys,
    samples: Int[Tensor, "rows seq"] | None = None,
) -> Bool[Tensor, "rows 1 seq key"]:
    """`visible_keys` of the new tokens, for all heads. The last key is that of the last token.

    With `samples`, several texts are in a row, and each token sees only the keys of its text.
    """
    if samples is not None:
        is_same = samples[:, :, None] == samples[:, None, :]
        return (visible_keys(positions, positions, window) & is_same)[:, None]
    back = torch.arange(keys - 1, -1, -1, device=positions.device)
    return visible_keys(positions, positions[:, -1:] - back, window)[:, None]

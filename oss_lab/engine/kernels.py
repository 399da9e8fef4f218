"""The kernel engine: the same forward as a plan of fused operations over the same weights.

Only values that cross a kernel boundary can be shown, and only changes that a later operation reads
have an effect; the table in `oss_lab/hooks/points.py` says which, and otherwise why not. Results
differ from the reference engine's by rounding only.
"""

from collections.abc import Collection, Sequence
from functools import partial
from typing import cast

import torch
from jaxtyping import Float, Int
from oss_kernels.attention.merge import merge
from oss_kernels.backends import Backend
from oss_kernels.experts.weights import ExpertWeights
from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.hooks.points import reason_against
from oss_lab.model.attention import Attention, Extend
from oss_lab.model.experts import PackedExperts
from oss_lab.model.hook import Hooks, LayerHook, in_layer, no_hooks
from oss_lab.model.moe import MixtureOfExperts
from oss_lab.model.norm import RMSNorm
from oss_lab.model.past import Beginning, Past, Span
from oss_lab.model.rope import Rotation, rotate, rotation
from oss_lab.model.transformer import Block, Transformer


class KernelEngine:
    """Runs the weights of `model`, their experts packed, by the operations of a backend."""

    def __init__(self, model: Transformer, kernels: Backend) -> None:
        self.model, self.kernels = model, kernels
        self.name: str = kernels.name

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return self.model.device

    def refusal(self, reads: Collection[str], writes: Collection[str]) -> str | None:
        """Why it cannot show or change one of these lines of the forward; None if it can."""
        return reason_against(reads, writes)

    def forward(
        self,
        tokens: Int[Tensor, "batch seq"],
        past: Past | None = None,
        *,
        last: int | None = None,
        hooks: Hooks = no_hooks,
    ) -> Float[Tensor, "batch kept vocab"]:
        """As `Transformer.forward`, without gradients."""
        model, seq = self.model, tokens.shape[1]
        past = Beginning() if past is None else past
        hook = in_layer(hooks, None)
        x = hook("embed", model.embedding(tokens))
        positions = past.positions(seq, tokens.device)
        by = rotation(model.config, positions, x.dtype)
        last_positions = positions[:, -1] if past.is_padded else None
        for n in range(len(model.block)):
            block, within = cast(Block, model.block[n]), in_layer(hooks, n)
            window = model.config.window(n)
            reach = model.reach(past.slots(seq), seq, window)
            extend = partial(past.extend, n, reach=reach)
            x = within("resid.pre", x)
            x = self._attend(x, block.attn, by, last_positions, extend, window, within)
            x = within("resid.mid", x)
            x = within("resid.post", x + self._mix_experts(x, block.mlp, within))
        kept = x if last is None else x[:, seq - min(last, seq) :]
        normed = hook("out.norm", self._norm(kept, model.norm))
        logits = self.kernels.linear(normed.flatten(0, 1), model.unembedding.weight, None)
        logits = hook("out.logits", logits.view(*kept.shape[:2], model.config.vocab_size))
        past.advance(seq)
        return logits

    def _norm(self, x: Float[Tensor, "batch seq hidden"], norm: RMSNorm) -> Float[Tensor, "..."]:
        return self.kernels.rms_norm(x.flatten(0, 1), norm.scale, norm.eps).view(x.shape)

    def _attend(
        self,
        x: Float[Tensor, "batch seq hidden"],
        attn: Attention,
        by: Rotation,
        last_positions: Int[Tensor, "rows"] | None,
        extend: Extend,
        window: int | None,
        hook: LayerHook,
    ) -> Float[Tensor, "batch seq hidden"]:
        """The residual stream plus attention."""
        normed = hook("attn.norm", self._norm(x, attn.norm)).flatten(0, 1)
        heads = self.kernels.linear(normed, attn.qkv.weight, attn.qkv.bias)
        heads = heads.view(*x.shape[:2], -1, attn.head_dim).transpose(1, 2)
        q, k, v = heads.split((attn.heads, attn.kv_heads, attn.kv_heads), dim=1)
        q, k, v = hook("attn.q", q), hook("attn.k", k), hook("attn.v", v)
        q, k = hook("attn.q_rot", rotate(q, by)), hook("attn.k_rot", rotate(k, by))
        spans = extend(k, v)
        learned = attn.sinks.float().expand(x.shape[0], -1)
        sinks = hook("attn.sink", learned)
        shared = attn.sinks.float() if sinks is learned else None
        if len(spans) == 1 and shared is not None:
            z, lse = self._attention(q, spans[0], shared, last_positions, window)
        else:
            z, lse = self._over_spans(q, spans, sinks, shared, last_positions, window)
        hook("attn.sink_mass", (sinks[:, :, None] - lse).exp())
        z = hook("attn.z", z).transpose(1, 2).flatten(2).flatten(0, 1)
        residual = x.flatten(0, 1)
        return self.kernels.linear(z, attn.out.weight, attn.out.bias, residual).view(x.shape)

    def _over_spans(
        self,
        q: Float[Tensor, "batch head seq head_dim"],
        spans: Sequence[Span],
        sinks: Float[Tensor, "batch head"],
        shared: Float[Tensor, "head"] | None,
        last_positions: Int[Tensor, "rows"] | None,
        window: int | None,
    ) -> tuple[Float[Tensor, "batch head seq head_dim"], Float[Tensor, "batch head seq"]]:
        """Attention over several spans, each by the kernel, merged.

        Args:
            shared: the sinks, if all rows have the same: the kernel counts them with the last span
                of each row. Sinks of each row's own are one more part.
        """
        none = torch.full_like(sinks[0], -torch.inf)
        z, lse = torch.empty_like(q), sinks.new_empty(q.shape[:3])
        by_rows: dict[tuple[int, int], list[Span]] = {}
        for span in spans:
            by_rows.setdefault((span.first, span.last), []).append(span)
        for (first, last), parts in by_rows.items():
            mine = slice(first, last)
            at = None if last_positions is None else last_positions[mine]
            counted = [none] * (len(parts) - 1) + [none if shared is None else shared]
            found = [
                self._attention(q[mine], span, sink, at, window)
                for span, sink in zip(parts, counted, strict=True)
            ]
            if shared is None:
                sink = sinks[mine, :, None].expand(found[0][1].shape)
                found.append((torch.zeros_like(q[mine]), sink))
            z[mine], lse[mine] = merge(found) if found[1:] else found[0]
        return z, lse

    def _attention(
        self,
        q: Float[Tensor, "rows head seq head_dim"],
        span: Span,
        sinks: Float[Tensor, "head"],
        last_positions: Int[Tensor, "rows"] | None,
        window: int | None,
    ) -> tuple[Float[Tensor, "rows head seq head_dim"], Float[Tensor, "rows head seq"]]:
        """(z, lse) of the keys of one span.

        Args:
            last_positions: of each row's last new token; None if no key is padding.
        """
        padding = None
        if last_positions is not None:  # a row's first key may be before its first token
            first_key = last_positions + 1 - span.later - span.keys.shape[2]
            padding = (-first_key).clamp(0, span.keys.shape[2])
        return self.kernels.attention(
            q, span.keys, span.values, sinks, window=window, padding=padding, later=span.later
        )

    def _mix_experts(
        self, x: Float[Tensor, "batch seq hidden"], mlp: MixtureOfExperts, hook: LayerHook
    ) -> Float[Tensor, "batch seq hidden"]:
        """The experts' contribution to the residual stream."""
        normed = hook("moe.norm", self._norm(x, mlp.norm)).flatten(0, 1)
        gate = mlp.gate
        ids, weights, logits = self.kernels.router(normed, gate.weight, gate.bias, mlp.slots)
        hook("moe.router_logits", logits.view(*x.shape[:2], -1))
        ids = hook("moe.expert_ids", ids.view(*x.shape[:2], -1)).flatten(0, 1)
        weights = hook("moe.expert_weights", weights.view(*x.shape[:2], -1)).flatten(0, 1)
        out = self.kernels.expert_mlp(
            normed, ids, weights, expert_weights(mlp), alpha=mlp.alpha, limit=mlp.limit
        )
        return hook("moe.out", out.view(x.shape))


def expert_weights(mlp: MixtureOfExperts) -> ExpertWeights:
    """The packed experts of a layer, as kernels take them."""
    gate_up, down = mlp.mlp1_weight, mlp.mlp2_weight
    assert isinstance(gate_up, PackedExperts)
    assert isinstance(down, PackedExperts)
    return ExpertWeights(
        gate_up.blocks, gate_up.scales, mlp.mlp1_bias, down.blocks, down.scales, mlp.mlp2_bias
    )

"""The kernel engine: the same forward pass on the same weights, computed with fused kernels.

Only values that cross a kernel boundary can be recorded, and only changes that a later kernel reads
have an effect. The table in `oss_lab/hooks/points.py` gives the reason for every other point.
Results differ from those of the reference engine only by rounding.

A new token takes a prepared step where there is one. On a CPU that is the compiled call of
`decode_plan.py`, for one sequence in an unforked cache. On a GPU it is the list of launches of
`device_decode.py`, for up to eight rows of one cache. Everything else is computed operation by
operation, also a token of which points are recorded that the step does not store. Its logits can
differ by rounding. The GPU's path was tested in Triton's interpreter only, never on a CUDA device.
"""

from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from jaxtyping import Float, Int
from oss_kernels.attention.merge import merge
from oss_kernels.backends import Backend
from oss_kernels.experts.weights import ExpertWeights
from torch import Tensor

from oss_lab.config import ModelConfig
from oss_lab.errors import LabError
from oss_lab.hooks.points import explain_kernel_limit
from oss_lab.model.attention import Attention, Extend
from oss_lab.model.experts import PackedExperts, has_dense_experts
from oss_lab.model.hook import Hooks, LayerHook, in_layer, no_hooks
from oss_lab.model.moe import MixtureOfExperts
from oss_lab.model.norm import RMSNorm
from oss_lab.model.parts import PUBLISHED
from oss_lab.model.past import NoPast, Past, Span
from oss_lab.model.rope import rotate, rotation
from oss_lab.model.transformer import Block, Transformer, count_keys

if TYPE_CHECKING:
    from oss_lab.engine.decode_plan import DecodePlan
    from oss_lab.engine.device_decode import DeviceDecode

DENSE_REFUSAL = (
    "experts packed as MXFP4, and these are dense in BF16; pack them with `oss-lab convert FOLDER"
    ' --to huggingface --out DIR --experts mxfp4`, or load them with kernels="reference"'
)


class KernelEngine:
    """Runs `model`, whose experts are packed as MXFP4, with the kernels of a backend.

    Raises:
        LabError: the model has dense experts or replaced parts.
    """

    def __init__(self, model: Transformer, kernels: Backend) -> None:
        if model.parts != PUBLISHED:
            raise LabError(f"the {kernels.name} kernels cannot run replaced parts")
        if has_dense_experts(model):
            raise LabError(f"the {kernels.name} kernels read {DENSE_REFUSAL}")
        self.model, self.kernels = model, kernels
        self.name: str = kernels.name
        self.parts: tuple[str, ...] = ()  # replaced parts run on the reference engine only
        self.plan = make_decode_plan(model, kernels)

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    @property
    def device(self) -> torch.device:
        return self.model.device

    def explain_refusal(self, reads: Collection[str], writes: Collection[str]) -> str | None:
        """Why it cannot record or change one of these points; None if it can."""
        return explain_kernel_limit(reads, writes)

    def forward(
        self,
        tokens: Int[Tensor, "batch seq"],
        past: Past | None = None,
        *,
        last: int | None = None,
        hooks: Hooks = no_hooks,
    ) -> Float[Tensor, "batch last vocab"]:
        """As `Transformer.forward`, without gradients."""
        if self.plan and (logits := self.plan.decode(tokens, past, last, hooks)) is not None:
            return logits
        model, seq = self.model, tokens.shape[1]
        past = NoPast() if past is None else past
        hook = in_layer(hooks, None)
        x = hook("embed", model.embedding(tokens))
        positions = past.positions(seq, tokens.device)
        cos, sin = rotation(model.config, positions, x.dtype)
        last_positions = positions[:, -1] if past.is_padded else None
        for n in range(len(model.block)):
            block, within = cast(Block, model.block[n]), in_layer(hooks, n)
            window = model.config.window(n)
            newest = count_keys(past.count_slots(seq), seq, window)
            extend = partial(past.extend, n, newest=newest)
            x = within("resid.pre", x)
            x = self._attend(x, block.attn, cos, sin, last_positions, extend, window, within)
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
        cos: Float[Tensor, "rows 1 seq head_dim"],
        sin: Float[Tensor, "rows 1 seq head_dim"],
        last_positions: Int[Tensor, "rows"] | None,
        extend: Extend,
        window: int | None,
        hook: LayerHook,
    ) -> Float[Tensor, "batch seq hidden"]:
        """The residual stream plus the output of attention."""
        normed = hook("attn.norm", self._norm(x, attn.norm)).flatten(0, 1)
        heads = self.kernels.linear(normed, attn.qkv.weight, attn.qkv.bias)
        heads = heads.view(*x.shape[:2], -1, attn.head_dim).transpose(1, 2)
        q, k, v = heads.split((attn.heads, attn.kv_heads, attn.kv_heads), dim=1)
        q, k, v = hook("attn.q", q), hook("attn.k", k), hook("attn.v", v)
        q = hook("attn.q_rot", rotate(q, cos, sin))
        k = hook("attn.k_rot", rotate(k, cos, sin))
        spans = extend(k, v)
        learned = attn.sinks.float().expand(x.shape[0], -1)
        sinks = hook("attn.sink", learned)
        shared = attn.sinks.float() if sinks is learned else None
        if len(spans) == 1 and shared is not None:
            z, lse = self._attention(q, spans[0], shared, last_positions, window)
        else:
            z, lse = self._attend_spans(q, spans, sinks, shared, last_positions, window)
        hook("attn.sink_mass", (sinks[:, :, None] - lse).exp())
        z = hook("attn.z", z).transpose(1, 2).flatten(2).flatten(0, 1)
        residual = x.flatten(0, 1)
        return self.kernels.linear(z, attn.out.weight, attn.out.bias, residual).view(x.shape)

    def _attend_spans(
        self,
        q: Float[Tensor, "batch head seq head_dim"],
        spans: Sequence[Span],
        sinks: Float[Tensor, "batch head"],
        shared: Float[Tensor, "head"] | None,
        last_positions: Int[Tensor, "rows"] | None,
        window: int | None,
    ) -> tuple[Float[Tensor, "batch head seq head_dim"], Float[Tensor, "batch head seq"]]:
        """Run the attention kernel on each span, and merge the results.

        Args:
            shared: the sinks, if they are the same in all rows; the kernel then includes them with
                the last span of each row. If they differ, they are merged as an additional part.
        """
        none = torch.full_like(sinks[0], -torch.inf)
        z, lse = torch.empty_like(q), sinks.new_empty(q.shape[:3])
        by_rows: dict[tuple[int, int], list[Span]] = {}
        for span in spans:
            by_rows.setdefault((span.first, span.last), []).append(span)
        for (first, last), parts in by_rows.items():
            rows = slice(first, last)
            at = None if last_positions is None else last_positions[rows]
            counted = [none] * (len(parts) - 1) + [none if shared is None else shared]
            found = [
                self._attention(q[rows], span, sink, at, window)
                for span, sink in zip(parts, counted, strict=True)
            ]
            if shared is None:
                sink = sinks[rows, :, None].expand(found[0][1].shape)
                found.append((torch.zeros_like(q[rows]), sink))
            z[rows], lse[rows] = merge(found) if found[1:] else found[0]
        return z, lse

    def _attention(
        self,
        q: Float[Tensor, "rows head seq head_dim"],
        span: Span,
        sinks: Float[Tensor, "head"],
        last_positions: Int[Tensor, "rows"] | None,
        window: int | None,
    ) -> tuple[Float[Tensor, "rows head seq head_dim"], Float[Tensor, "rows head seq"]]:
        """Run the attention kernel on one span: (z, lse).

        Args:
            last_positions: position of each row's last new token; None if no key is padding.
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
        """The weighted sum of the experts' outputs."""
        normed = hook("moe.norm", self._norm(x, mlp.norm)).flatten(0, 1)
        gate = mlp.gate
        ids, weights, logits = self.kernels.router(normed, gate.weight, gate.bias, mlp.slots)
        hook("moe.router_logits", logits.view(*x.shape[:2], -1))
        ids = hook("moe.expert_ids", ids.view(*x.shape[:2], -1)).flatten(0, 1)
        weights = hook("moe.expert_weights", weights.view(*x.shape[:2], -1)).flatten(0, 1)
        out = self.kernels.expert_mlp(
            normed, ids, weights, collect_expert_weights(mlp), alpha=mlp.alpha, limit=mlp.limit
        )
        return hook("moe.out", out.view(x.shape))


def make_decode_plan(model: Transformer, kernels: Backend) -> "DecodePlan | DeviceDecode | None":
    """What computes new tokens in the common cases, if the backend has it."""
    if kernels.name == "cpu":
        from oss_lab.engine.decode_plan import DecodePlan  # needs numba

        return DecodePlan(model)
    if kernels.name == "triton":
        from oss_lab.engine.device_decode import DeviceDecode  # needs triton

        return DeviceDecode(model)
    return None


def collect_expert_weights(mlp: MixtureOfExperts) -> ExpertWeights:
    """The packed experts of a layer, in the form that the kernels expect."""
    gate_up, down = mlp.mlp1_weight, mlp.mlp2_weight
    assert isinstance(gate_up, PackedExperts)
    assert isinstance(down, PackedExperts)
    return ExpertWeights(
        gate_up.blocks, gate_up.scales, mlp.mlp1_bias, down.blocks, down.scales, mlp.mlp2_bias
    )

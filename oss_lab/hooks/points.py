"""The hook points: every activation that can be recorded, as one table.

A row gives the point's dotted name, its axes without the batch, its meaning and its tier. The
documentation, the checks, the size of a trace and the plots all use this table. The model passes
each activation to `hook(name, x)` (see `oss_lab/model`), except for rows with `sources`.
`oss_lab/hooks/derived.py` computes those from other points.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch

from oss_lab.config import ModelConfig
from oss_lab.errors import LabError, list_known

Axis = Literal[
    "seq",
    "key",
    "hidden",
    "head",
    "kv_head",
    "head_dim",
    "expert",
    "slot",
    "width",
    "vocab",
    "rank",
]
Kind = Literal["activation", "float32", "share", "expert", "token"]
RANKS = 20  # how many tokens `out.top_ids` keeps at each position


@dataclass(frozen=True)
class Point:
    """One hook point: an activation of the forward pass, or a quantity computed from activations.

    Attributes:
        axes: axes of one layer's tensor in a trace, without the batch.
        tier: 1 is small enough to record always, 2 is recorded on request, 3 is large: select few
            layers or positions.
        is_per_layer: whether every layer has this point.
        kind: what the numbers are; see `trace_dtype`.
        read_only_reason: why this point cannot be modified, or None.
        not_in_kernels_reason: why the kernels cannot record it, or None. Such requests run the
            reference model.
        too_late_in_kernels_reason: why the kernels can record it but ignore a change, or None.
        sources: the points that it is computed from; empty for a point of the model itself.
    """

    name: str
    axes: tuple[Axis, ...]
    meaning: str
    tier: Literal[1, 2, 3] = 2
    is_per_layer: bool = True
    kind: Kind = "activation"
    read_only_reason: str | None = None
    not_in_kernels_reason: str | None = None
    too_late_in_kernels_reason: str | None = None
    sources: tuple[str, ...] = ()

    @property
    def has_head_axis(self) -> bool:
        """Whether it is [batch head seq ...] in the model, and so [seq head ...] in a trace."""
        return self.axes[1:2] in (("head",), ("kv_head",))

    def size(self, axis: Axis, config: ModelConfig, seq: int) -> int:
        """Length of one axis in a trace of `seq` tokens."""
        return {
            "seq": seq,
            "key": seq,
            "hidden": config.hidden_size,
            "head": config.num_attention_heads,
            "kv_head": config.num_key_value_heads,
            "head_dim": config.head_dim,
            "expert": config.num_experts,
            "slot": config.experts_per_token,
            "width": config.intermediate_size,
            "vocab": config.vocab_size,
            "rank": min(RANKS, config.vocab_size),
        }[axis]

    def trace_dtype(self, computed: torch.dtype) -> torch.dtype:
        """The dtype in a trace, for a model that computes in `computed`.

        An expert takes one byte and a token four. A share is between 0 and 1, where float16 is
        eight times as precise as bfloat16.
        """
        if self.kind == "share":
            return torch.float16 if computed == torch.bfloat16 else torch.float32
        kinds = {"activation": computed, "expert": torch.uint8, "token": torch.int32}
        return kinds.get(self.kind, torch.float32)

    def nbytes(self, config: ModelConfig, dtype: torch.dtype, seq: int) -> int:
        """Size of one layer in a trace of `seq` tokens, in bytes."""
        count = 1
        for axis in self.axes:
            count *= self.size(axis, config, seq)
        return count * self.trace_dtype(dtype).itemsize


COMPUTED = "it is computed from other points; use {} instead"
ATTENTION = "the attention kernel never stores it"
FUSED = "its kernel adds it to the residual stream without storing it"
EXPERT = "the expert kernel never stores it"

POINTS = {
    point.name: point
    for point in (
        Point("embed", ("seq", "hidden"), "token embeddings", is_per_layer=False),
        Point("resid.pre", ("seq", "hidden"), "residual stream before the layer"),
        Point("attn.norm", ("seq", "hidden"), "input of the attention block, after RMSNorm"),
        Point("attn.q", ("seq", "head", "head_dim"), "queries before RoPE"),
        Point("attn.k", ("seq", "kv_head", "head_dim"), "keys before RoPE"),
        Point("attn.v", ("seq", "kv_head", "head_dim"), "values"),
        Point("attn.q_rot", ("seq", "head", "head_dim"), "queries after RoPE"),
        Point("attn.k_rot", ("seq", "kv_head", "head_dim"), "keys after RoPE, as cached"),
        Point(
            "attn.scores",
            ("seq", "head", "key"),
            "query times key, divided by sqrt(head_dim); -inf for keys that the token cannot see",
            tier=3,
            kind="float32",
            not_in_kernels_reason=ATTENTION,
        ),
        Point(
            "attn.sink",
            ("head",),
            "learned sink logit of each head, an extra entry in the softmax",
            kind="float32",
        ),
        Point(
            "attn.pattern",
            ("seq", "head", "key"),
            "attention weights over the keys, which sum to 1 minus attn.sink_mass",
            tier=3,
            kind="float32",
            not_in_kernels_reason=ATTENTION,
        ),
        Point(
            "attn.sink_mass",
            ("seq", "head"),
            "share of the attention that goes to the sink",
            tier=1,
            kind="share",
            read_only_reason=COMPUTED.format("attn.sink or attn.scores"),
        ),
        Point(
            "attn.lse",
            ("seq", "head"),
            "log of the sum of exp(score) over all keys and the sink, in nats",
            kind="float32",
            read_only_reason=COMPUTED.format("attn.sink or attn.scores"),
            not_in_kernels_reason=ATTENTION,
            sources=("attn.scores", "attn.sink"),
        ),
        Point("attn.z", ("seq", "head", "head_dim"), "weighted sum of the values, per head"),
        Point(
            "attn.head_out",
            ("seq", "head", "hidden"),
            "each head's contribution to attn.out, without the bias",
            tier=3,
            read_only_reason=COMPUTED.format("attn.z"),
            sources=("attn.z",),
        ),
        Point(
            "attn.out",
            ("seq", "hidden"),
            "output of the attention block, added to the residual stream",
            not_in_kernels_reason=FUSED,
        ),
        Point("resid.mid", ("seq", "hidden"), "residual stream between attention and experts"),
        Point("moe.norm", ("seq", "hidden"), "input of the router and the experts, after RMSNorm"),
        Point(
            "moe.router_logits",
            ("seq", "expert"),
            "router logit of each expert",
            too_late_in_kernels_reason="the router kernel has already chosen the experts",
        ),
        Point(
            "moe.expert_ids",
            ("seq", "slot"),
            "chosen experts, largest router logit first",
            tier=1,
            kind="expert",
            too_late_in_kernels_reason="the router kernel has already computed the expert weights",
        ),
        Point(
            "moe.expert_weights",
            ("seq", "slot"),
            "weights of the chosen experts, which sum to 1",
            tier=1,
        ),
        Point(
            "moe.margin",
            ("seq",),
            "router logit of the last chosen expert minus that of the best expert not chosen",
            tier=1,
            kind="float32",
            read_only_reason=COMPUTED.format("moe.router_logits"),
            sources=("moe.router_logits",),
        ),
        Point(
            "moe.entropy",
            ("seq",),
            "entropy of the softmax over all router logits, in nats",
            kind="float32",
            read_only_reason=COMPUTED.format("moe.router_logits"),
            sources=("moe.router_logits",),
        ),
        Point(
            "moe.gate",
            ("seq", "slot", "width"),
            "gate projection of each chosen expert, before clamping",
            tier=3,
            not_in_kernels_reason=EXPERT,
        ),
        Point(
            "moe.up",
            ("seq", "slot", "width"),
            "up projection of each chosen expert, before clamping",
            tier=3,
            not_in_kernels_reason=EXPERT,
        ),
        Point(
            "moe.act",
            ("seq", "slot", "width"),
            "activation of each chosen expert: SwiGLU of gate and up",
            tier=3,
            not_in_kernels_reason=EXPERT,
        ),
        Point(
            "moe.expert_out",
            ("seq", "slot", "hidden"),
            "output of each chosen expert, before weighting",
            tier=3,
            not_in_kernels_reason=EXPERT,
        ),
        Point(
            "moe.out",
            ("seq", "hidden"),
            "weighted sum of the experts' outputs, added to the residual stream",
        ),
        Point("resid.post", ("seq", "hidden"), "residual stream after the layer"),
        Point(
            "out.layer_logits",
            ("seq", "vocab"),
            "logits if this layer were the last one (logit lens)",
            tier=3,
            read_only_reason=COMPUTED.format("resid.post"),
            sources=("resid.post",),
        ),
        Point(
            "out.norm",
            ("seq", "hidden"),
            "final residual stream, after RMSNorm",
            is_per_layer=False,
        ),
        Point(
            "out.logits", ("seq", "vocab"), "logits over the vocabulary", tier=3, is_per_layer=False
        ),
        Point(
            "out.top_ids",
            ("seq", "rank"),
            f"the {RANKS} most likely next tokens, most likely first",
            tier=1,
            is_per_layer=False,
            kind="token",
            read_only_reason=COMPUTED.format("out.logits"),
            sources=("out.logits",),
        ),
        Point(
            "out.top_logprobs",
            ("seq", "rank"),
            "log-probabilities of the tokens in out.top_ids, in nats",
            tier=1,
            is_per_layer=False,
            kind="float32",
            read_only_reason=COMPUTED.format("out.logits"),
            sources=("out.logits",),
        ),
    )
}
"""Every point, in the order of the forward pass."""

ALWAYS = tuple(name for name, point in POINTS.items() if point.tier == 1)
FORWARD_POINTS = frozenset(name for name, point in POINTS.items() if not point.sources)
"""Points that the model passes to a hook; the others are computed from these."""

RECORDABLE_IN_KERNELS = frozenset(
    name for name in FORWARD_POINTS if POINTS[name].not_in_kernels_reason is None
)
"""Points that the kernels can record."""

WRITABLE_IN_KERNELS = frozenset(
    name for name in RECORDABLE_IN_KERNELS if POINTS[name].too_late_in_kernels_reason is None
)
"""Points that can be changed when the kernels run: a later kernel reads the changed value."""

AFTER_THE_LAYERS = frozenset({"out.norm", "out.logits"})
"""Points that a forward pass may compute for its last positions only."""

HIDDEN_KEY_VALUES = {"attn.scores": -torch.inf, "attn.pattern": 0.0}
"""Value for keys that a sliding layer has already dropped, and for keys of later tokens."""


def check_points(names: Collection[str]) -> None:
    """Raise LabError for an unknown name."""
    for name in names:
        if not isinstance(name, str):
            raise LabError(f"expected the name of a point such as 'resid.post', got {name!r}")
        if name in POINTS:
            continue
        if "hook_" in name or name.startswith("model."):  # TransformerLens or nnsight
            raise LabError(
                f"unknown point {name!r}; see `oss_lab/hooks/NAMES.md` for the names of"
                " TransformerLens and nnsight"
            )
        raise LabError(f"unknown point {name!r}; {list_known('point', name, POINTS)}")


def find_forward_points(names: Collection[str]) -> frozenset[str]:
    """The points of the model itself that these points are computed from."""
    return frozenset(source for name in names for source in POINTS[name].sources or (name,))


def needs_logits(names: Collection[str]) -> bool:
    """Whether these points need the final norm or the logits at every position."""
    return not AFTER_THE_LAYERS.isdisjoint(find_forward_points(names))


def explain_kernel_limit(reads: Collection[str], writes: Collection[str]) -> str | None:
    """Why the kernels cannot record or modify one of these points; None if they can."""
    for name in sorted({*reads, *writes}):
        if reason := POINTS[name].not_in_kernels_reason:
            return f"{name}: {reason}"
    for name in sorted(writes):
        if reason := POINTS[name].too_late_in_kernels_reason:
            return f"{name} cannot be modified: {reason}"
    return None

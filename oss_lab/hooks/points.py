"""The hook points: what can be seen in a forward, as data.

A row is a quantity: its dotted name, its axes without the batch, what it means, and which tier it
belongs to. Documentation, validation, the cost of a trace and the views are made from this table;
`hook(name, x)` in `oss_lab/model` is where a quantity comes from. A row with `sources` is not a
line of the forward: `oss_lab/hooks/derived.py` computes it from those.
"""

from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import torch

from oss_lab.config import ModelConfig
from oss_lab.errors import LabError

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
RANKS = 20  # alternatives that `out.top_ids` keeps of a token


@dataclass(frozen=True)
class Point:
    """A quantity of the forward.

    Attributes:
        axes: of one layer's tensor as a trace keeps it, without the batch.
        tier: 1 is cheap enough to be kept always, 2 is kept on request, 3 is large: ask for few
            layers or positions.
        layered: there is one in each layer.
        kind: what its numbers are; see `kept_dtype`.
        fixed: why it cannot be written; "" if it can.
        inside: why the kernels do not show it, so that the spelt-out model is asked; "" if they do.
        late: why a change of what they show comes too late for them; "" if it does not.
        sources: the points that it is computed from; none for a line of the forward.
    """

    name: str
    axes: tuple[Axis, ...]
    meaning: str
    tier: Literal[1, 2, 3] = 2
    layered: bool = True
    kind: Kind = "activation"
    fixed: str = ""
    inside: str = ""
    late: str = ""
    sources: tuple[str, ...] = ()

    @property
    def by_head(self) -> bool:
        """Whether the forward has it head by head, [batch head seq ...]; a trace has seq first."""
        return self.axes[1:2] in (("head",), ("kv_head",))

    def size(self, axis: Axis, config: ModelConfig, seq: int) -> int:
        """Length of an axis in a trace of `seq` tokens."""
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

    def kept_dtype(self, computed: torch.dtype) -> torch.dtype:
        """In what a trace of a model that computes in `computed` keeps it.

        Experts take a byte and tokens four. A share lies between 0 and 1, where float16 is eight
        times finer than bfloat16.
        """
        if self.kind == "share":
            return torch.float16 if computed == torch.bfloat16 else torch.float32
        kinds = {"activation": computed, "expert": torch.uint8, "token": torch.int32}
        return kinds.get(self.kind, torch.float32)

    def nbytes(self, config: ModelConfig, dtype: torch.dtype, seq: int) -> int:
        """Bytes of one layer in a trace of `seq` tokens."""
        count = 1
        for axis in self.axes:
            count *= self.size(axis, config, seq)
        return count * self.kept_dtype(dtype).itemsize


FOLLOWS = "it follows from {}: write that"
ATTENTION = "the attention kernel never stores it"
FUSED = "its kernel adds it to the residual stream at once"
EXPERT = "the expert kernel never stores it"


def _follows(source: str) -> str:
    return FOLLOWS.format(source)


POINTS = {
    point.name: point
    for point in (
        Point("embed", ("seq", "hidden"), "the tokens' embeddings", layered=False),
        Point("resid.pre", ("seq", "hidden"), "residual stream before the layer"),
        Point("attn.norm", ("seq", "hidden"), "input of the attention, normed"),
        Point("attn.q", ("seq", "head", "head_dim"), "queries before RoPE"),
        Point("attn.k", ("seq", "kv_head", "head_dim"), "keys before RoPE"),
        Point("attn.v", ("seq", "kv_head", "head_dim"), "values"),
        Point("attn.q_rot", ("seq", "head", "head_dim"), "queries after RoPE"),
        Point("attn.k_rot", ("seq", "kv_head", "head_dim"), "keys after RoPE, as they are cached"),
        Point(
            "attn.scores",
            ("seq", "head", "key"),
            "query times key over the root of head_dim; -inf where invisible",
            tier=3,
            kind="float32",
            inside=ATTENTION,
        ),
        Point("attn.sink", ("head",), "the sinks' logits", kind="float32"),
        Point(
            "attn.pattern",
            ("seq", "head", "key"),
            "attention paid to each key; sums to one less the sink's mass",
            tier=3,
            kind="float32",
            inside=ATTENTION,
        ),
        Point(
            "attn.sink_mass",
            ("seq", "head"),
            "attention that the sink takes",
            tier=1,
            kind="share",
            fixed=_follows("attn.sink or attn.scores"),
        ),
        Point(
            "attn.lse",
            ("seq", "head"),
            "log of the sum of the exponentials of scores and sink, in nats",
            kind="float32",
            fixed=_follows("attn.sink or attn.scores"),
            inside=ATTENTION,
            sources=("attn.scores", "attn.sink"),
        ),
        Point("attn.z", ("seq", "head", "head_dim"), "what each head gathered of the values"),
        Point(
            "attn.head_out",
            ("seq", "head", "hidden"),
            "each head's part of the attention's contribution, without the bias",
            tier=3,
            fixed=_follows("attn.z"),
            sources=("attn.z",),
        ),
        Point(
            "attn.out",
            ("seq", "hidden"),
            "the attention's contribution to the residual stream",
            inside=FUSED,
        ),
        Point("resid.mid", ("seq", "hidden"), "residual stream between attention and experts"),
        Point("moe.norm", ("seq", "hidden"), "input of the router and the experts, normed"),
        Point(
            "moe.router_logits",
            ("seq", "expert"),
            "the router's logit for each expert",
            late="the router kernel has chosen by then",
        ),
        Point(
            "moe.expert_ids",
            ("seq", "slot"),
            "the chosen experts, by falling logit",
            tier=1,
            kind="expert",
            late="the router kernel has weighed its choice by then",
        ),
        Point(
            "moe.expert_weights",
            ("seq", "slot"),
            "their weights, which sum to one",
            tier=1,
        ),
        Point(
            "moe.margin",
            ("seq",),
            "by how much the last expert that was chosen is ahead of the first that was not",
            tier=1,
            kind="float32",
            fixed=_follows("moe.router_logits"),
            sources=("moe.router_logits",),
        ),
        Point(
            "moe.entropy",
            ("seq",),
            "entropy of the softmax over all experts' logits, in nats",
            kind="float32",
            fixed=_follows("moe.router_logits"),
            sources=("moe.router_logits",),
        ),
        Point(
            "moe.gate",
            ("seq", "slot", "width"),
            "each chosen expert's gate, before it is clamped",
            tier=3,
            inside=EXPERT,
        ),
        Point(
            "moe.up",
            ("seq", "slot", "width"),
            "each chosen expert's up, before it is clamped",
            tier=3,
            inside=EXPERT,
        ),
        Point(
            "moe.act",
            ("seq", "slot", "width"),
            "each chosen expert's activation, gate and up taken together",
            tier=3,
            inside=EXPERT,
        ),
        Point(
            "moe.expert_out",
            ("seq", "slot", "hidden"),
            "what each chosen expert says, unweighted",
            tier=3,
            inside=EXPERT,
        ),
        Point("moe.out", ("seq", "hidden"), "the experts' contribution to the residual stream"),
        Point("resid.post", ("seq", "hidden"), "residual stream after the layer"),
        Point(
            "out.layer_logits",
            ("seq", "vocab"),
            "logits if the layer were the last",
            tier=3,
            fixed=_follows("resid.post"),
            sources=("resid.post",),
        ),
        Point("out.norm", ("seq", "hidden"), "the last residual stream, normed", layered=False),
        Point("out.logits", ("seq", "vocab"), "logits over the vocabulary", tier=3, layered=False),
        Point(
            "out.top_ids",
            ("seq", "rank"),
            f"the {RANKS} likeliest next tokens, best first",
            tier=1,
            layered=False,
            kind="token",
            fixed=_follows("out.logits"),
            sources=("out.logits",),
        ),
        Point(
            "out.top_logprobs",
            ("seq", "rank"),
            "their log-probabilities, in nats",
            tier=1,
            layered=False,
            kind="float32",
            fixed=_follows("out.logits"),
            sources=("out.logits",),
        ),
    )
}
"""Every point, in the order of the forward."""

ALWAYS = tuple(name for name, point in POINTS.items() if point.tier == 1)
LINES = frozenset(name for name, point in POINTS.items() if not point.sources)
"""Points that are a line of the forward; the others are computed from these."""

SHOWN_BY_KERNELS = frozenset(name for name in LINES if not POINTS[name].inside)
TAKEN_BY_KERNELS = frozenset(name for name in SHOWN_BY_KERNELS if not POINTS[name].late)
"""Points whose change a later operation of the kernels reads."""

AFTER_THE_LAYERS = frozenset({"out.norm", "out.logits"})
"""Lines that a forward may compute for its last positions only."""

UNSEEN = {"attn.scores": -torch.inf, "attn.pattern": 0.0}
"""What a key has that a layer no longer holds, or that came later."""


def check_points(names: Collection[str]) -> None:
    """Raise LabError for a name that no point has."""
    for name in names:
        if name not in POINTS:
            close = get_close_matches(name, POINTS, n=1)
            meant = f", but {close[0]}" if close else ""
            raise LabError(f"there is no point {name!r}{meant}; the points are {', '.join(POINTS)}")


def lines_of(names: Collection[str]) -> frozenset[str]:
    """The lines of the forward that these points need."""
    return frozenset(source for name in names for source in POINTS[name].sources or (name,))


def needs_logits(names: Collection[str]) -> bool:
    """Whether these points need the final norm or the logits at every kept position."""
    return not AFTER_THE_LAYERS.isdisjoint(lines_of(names))


def reason_against(reads: Collection[str], writes: Collection[str]) -> str | None:
    """Why the kernels cannot show or change one of these lines; None if they can."""
    for name in sorted({*reads, *writes}):
        if inside := POINTS[name].inside:
            return f"{name}: {inside}"
    for name in sorted(writes):
        if late := POINTS[name].late:
            return f"a change of {name}: {late}"
    return None

"""Functions for the points that are computed from other points.

Each takes the model, the layer and the source tensors, and returns the derived point. All tensors
have the model's layout: batch first, heads before positions.
"""

from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_lab.hooks.points import RANKS
from oss_lab.model.attention import Attention
from oss_lab.model.transformer import Block, Transformer

Derive = Callable[..., Tensor]


def lse(
    model: Transformer,
    layer: int,
    scores: Float[Tensor, "batch head seq key"],
    sink: Float[Tensor, "batch head"],
) -> Float[Tensor, "batch head seq"]:
    """`attn.lse`."""
    return torch.logaddexp(scores.logsumexp(-1), sink[:, :, None])


def head_out(
    model: Transformer, layer: int, z: Float[Tensor, "batch head seq head_dim"]
) -> Float[Tensor, "batch head seq hidden"]:
    """`attn.head_out`: its sum over heads, plus the bias, is `attn.out`."""
    model.require_whole("attn.head_out")
    out = attention(model, layer).out.weight
    by_head = out.view(len(out), z.shape[1], z.shape[3])
    return torch.einsum("bhsd,nhd->bhsn", z, by_head)


def margin(
    model: Transformer, layer: int, router_logits: Float[Tensor, "batch seq expert"]
) -> Float[Tensor, "batch seq"]:
    """`moe.margin`."""
    slots = model.config.experts_per_token
    if slots == model.config.num_experts:  # every expert is chosen, so there is no next one
        return torch.full_like(router_logits[..., 0], torch.inf, dtype=torch.float32)
    best = router_logits.float().topk(slots + 1).values
    return best[..., slots - 1] - best[..., slots]


def entropy(
    model: Transformer, layer: int, router_logits: Float[Tensor, "batch seq expert"]
) -> Float[Tensor, "batch seq"]:
    """`moe.entropy`."""
    shares = router_logits.float().softmax(-1)
    return torch.special.entr(shares).sum(-1)  # a share of 0, as of a banned expert, adds 0


def layer_logits(
    model: Transformer, layer: int, resid: Float[Tensor, "batch seq hidden"]
) -> Float[Tensor, "batch seq vocab"]:
    """`out.layer_logits`: the final norm and the unembedding applied after an earlier layer."""
    return model.unembedding(model.norm(resid))


def top_ids(
    model: Transformer, layer: None, logits: Float[Tensor, "batch seq vocab"]
) -> Int[Tensor, "batch seq rank"]:
    """`out.top_ids`."""
    return logits.topk(min(RANKS, logits.shape[-1])).indices


def top_logprobs(
    model: Transformer, layer: None, logits: Float[Tensor, "batch seq vocab"]
) -> Float[Tensor, "batch seq rank"]:
    """`out.top_logprobs`."""
    ranks = min(RANKS, logits.shape[-1])
    return logits.float().log_softmax(-1).topk(ranks).values


DERIVED: dict[str, Derive] = {
    "attn.lse": lse,
    "attn.head_out": head_out,
    "moe.margin": margin,
    "moe.entropy": entropy,
    "out.layer_logits": layer_logits,
    "out.top_ids": top_ids,
    "out.top_logprobs": top_logprobs,
}


def attention(model: Transformer, layer: int) -> Attention:
    return cast(Block, model.block[layer]).attn

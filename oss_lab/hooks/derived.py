"""The points that are no line of the forward: how each follows from lines that are.

A function takes the model, the layer and the source tensors as the forward has them
(batch first, heads before positions), and returns what the forward would have.
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
    """`attn.head_out`: the sum over heads, and the bias, is `attn.out`."""
    out = attention(model, layer).out.weight
    by_head = out.view(len(out), z.shape[1], z.shape[3])
    return torch.einsum("bhsd,nhd->bhsn", z, by_head)


def margin(
    model: Transformer, layer: int, router_logits: Float[Tensor, "batch seq expert"]
) -> Float[Tensor, "batch seq"]:
    """`moe.margin`."""
    slots = model.config.experts_per_token
    if slots == model.config.num_experts:  # every expert is chosen: none could take its place
        return torch.full_like(router_logits[..., 0], torch.inf, dtype=torch.float32)
    best = router_logits.float().topk(slots + 1).values
    return best[..., slots - 1] - best[..., slots]


def entropy(
    model: Transformer, layer: int, router_logits: Float[Tensor, "batch seq expert"]
) -> Float[Tensor, "batch seq"]:
    """`moe.entropy`."""
    shares = router_logits.float().softmax(-1)
    return torch.special.entr(shares).sum(-1)  # 0 for a share of 0, as of a forbidden expert


def layer_logits(
    model: Transformer, layer: int, resid: Float[Tensor, "batch seq hidden"]
) -> Float[Tensor, "batch seq vocab"]:
    """`out.layer_logits`: the last norm and the unembedding on an earlier residual stream."""
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

"""The router in plain torch: which experts a token goes to, and how much each counts."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def router(
    x: Float[Tensor, "token hidden"],
    weight: Float[Tensor, "expert hidden"],
    bias: Float[Tensor, "expert"],
    slots: int,
) -> tuple[Int[Tensor, "token slot"], Float[Tensor, "token slot"], Float[Tensor, "token expert"]]:
    """(ids, weights) of each token's `slots` experts by falling logit, and all experts' logits.

    x is already normed. Logits are computed and kept in float32 (float64 for float64 x), whatever
    the weights are. Equal logits are ordered as torch.topk does on a CPU, which is transformers'
    order there. The softmax is over the chosen logits only, so a token's weights sum to one. ids
    are int32, weights have the logits' type.
    """
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    logits = x.to(wide) @ weight.to(wide).T + bias.to(wide)
    # A GPU's torch.topk may order equal logits differently, so the CPU's makes the choice.
    ids = logits.detach().cpu().topk(slots, dim=-1).indices.to(logits.device)
    return ids.int(), logits.gather(-1, ids).softmax(dim=-1), logits

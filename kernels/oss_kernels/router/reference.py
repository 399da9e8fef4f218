"""The router in plain torch: which experts a token uses, and the weight of each."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def router(
    x: Float[Tensor, "token hidden"],
    weight: Float[Tensor, "expert hidden"],
    bias: Float[Tensor, "expert"],
    slots: int,
) -> tuple[Int[Tensor, "token slot"], Float[Tensor, "token slot"], Float[Tensor, "token expert"]]:
    """(ids, weights) of each token's `slots` experts, largest logit first, and all experts' logits.

    x is already normalized. Logits are computed and returned in float32 (float64 for float64 x),
    whatever dtype the weights have. Equal logits are in the order of torch.topk on a CPU, which is
    also transformers' order there. The softmax is over the chosen logits only, so a token's weights
    sum to one. ids are int32; weights have the dtype of the logits.
    """
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    logits = x.to(wide) @ weight.to(wide).T + bias.to(wide)
    # torch.topk on a GPU may order equal logits differently, so the choice is made on the CPU.
    ids = logits.detach().cpu().topk(slots, dim=-1).indices.to(logits.device)
    return ids.int(), logits.gather(-1, ids).softmax(dim=-1), logits

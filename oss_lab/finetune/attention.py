"""Attention of whole sequences through kernels, which keep no scores for the backward pass.

The reference keeps the shares of every pair of tokens: at 1,024 tokens 268 MB for a layer of 20b.
The kernels keep q, k, v, the result and one number per query, and compute shares again in blocks.
"""

import torch
from jaxtyping import Bool, Float, Int
from oss_kernels.autograd.attention import attention
from oss_kernels.backends import Backend
from torch import Tensor, nn

from oss_lab.model.attention import Attention, Extend
from oss_lab.model.hook import LayerHook


class KernelAttention(nn.Module):
    """`base` with its scores, softmax and mixing in one operation of `kernels`.

    For whole rows without earlier tokens, and the model's own parts. Scores and shares do not
    exist, so hooks are not called.
    """

    def __init__(self, base: Attention, kernels: Backend) -> None:
        super().__init__()
        self.base, self.kernels = base, kernels

    def forward(
        self,
        x: Float[Tensor, "batch seq hidden"],
        cos: Float[Tensor, "rows 1 seq head_dim"],
        sin: Float[Tensor, "rows 1 seq head_dim"],
        visible: Bool[Tensor, "rows 1 seq seq"] | None,
        extend: Extend,
        hook: LayerHook,
    ) -> Float[Tensor, "batch seq hidden"]:
        base = self.base
        heads = base.qkv(base.norm(x)).view(*x.shape[:2], -1, base.head_dim).transpose(1, 2)
        q, k, v = heads.split((base.heads, base.kv_heads, base.kv_heads), dim=1)
        q, k = base.rotate(q, cos, sin), base.rotate(k, cos, sin)
        starts = None if visible is None else find_first_visible(visible[:, 0])
        z = attention(q, k, v, base.sinks, backend=self.kernels, starts=starts)
        return base.out(z.transpose(1, 2).flatten(2))


def find_first_visible(visible: Bool[Tensor, "rows seq seq"]) -> Int[Tensor, "rows seq"]:
    """The first key that each query sees; the one after the query itself if it sees none.

    A query sees all keys from there to its own, since a text and a window have no gaps.
    """
    nothing = torch.arange(1, visible.shape[1] + 1, device=visible.device)
    first = visible.byte().argmax(dim=-1)  # of equal values argmax takes the first
    return torch.where(visible.any(dim=-1), first, nothing)

"""One row of keys for a whole batch: the batch's queries become extra heads of each kv head.

Multiplying a batch by keys expanded to that batch would copy the keys once per row. Queries are
small, so they are rearranged instead:

    q  [batch (kv_head group) seq head_dim]  ->  [1 (kv_head batch group) seq head_dim]
"""

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor


def fold(
    q: Float[Tensor, "batch head seq head_dim"],
    sinks: Float[Tensor, "head"],
    padding: Int[Tensor, "batch"] | None,
    kv_heads: int,
) -> tuple[
    Float[Tensor, "1 folded seq head_dim"],
    Float[Tensor, "folded"],
    Int[Tensor, "1 folded"] | None,
]:
    """q, sinks and padding with the batch's rows as heads: folded = kv_head · batch · group."""
    batch, heads, seq, head_dim = q.shape
    group = heads // kv_heads
    by_kv_head = q.view(batch, kv_heads, group, seq, head_dim).transpose(0, 1)
    folded = (kv_heads, batch, group)
    if padding is not None:
        padding = padding[:, None].expand(folded).reshape(1, -1)
    return (
        by_kv_head.reshape(1, kv_heads * batch * group, seq, head_dim),
        sinks.view(kv_heads, 1, group).expand(folded).reshape(-1),
        padding,
    )


def unfold(
    folded: Float[Tensor, "1 folded seq *head_dim"], kv_heads: int, shape: Sequence[int]
) -> Float[Tensor, "batch head seq *head_dim"]:
    """z or lse in the given `shape`, with the rows back in the batch axis; contiguous."""
    batch, heads, *rest = shape
    by_kv_head = folded.view(kv_heads, batch, heads // kv_heads, *rest)
    return by_kv_head.transpose(0, 1).reshape(*shape)

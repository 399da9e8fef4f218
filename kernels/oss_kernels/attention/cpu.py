"""Attention on a CPU: one block of queries at a time, in a scratch buffer that all blocks reuse.

A tensor of all scores, plus the copies that a softmax makes, would be allocated by the system again
in every layer. That costs more than the arithmetic. In a sliding layer a block reads only the keys
inside its queries' windows.
"""

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_kernels.attention.cpu_tiles import KEYS, attention_kernel
from oss_kernels.attention.shared import fold, unfold
from oss_kernels.cpu.amx import DEPTH, SIDE, TOKENS
from oss_kernels.cpu.machine import has_amx
from oss_kernels.cpu.numbers import as_numpy
from oss_kernels.cpu.threads import follow_torch

SCORES = 2**18  # maximum number of scores in a block with more than one query


def attention(
    q: Float[Tensor, "batch head seq head_dim"],
    k: Float[Tensor, "#batch kv_head key head_dim"],
    v: Float[Tensor, "#batch kv_head key head_dim"],
    sinks: Float[Tensor, "head"],
    *,
    window: int | None = None,
    padding: Int[Tensor, "batch"] | None = None,
    later: int = 0,
    starts: Int[Tensor, "#batch seq"] | None = None,
) -> tuple[Float[Tensor, "batch head seq head_dim"], Float[Tensor, "batch head seq"]]:
    """The operation of `reference.attention`."""
    kv_heads, keys = k.shape[1:3]
    shape, is_shared = q.shape, starts is None and k.shape[0] == 1 != q.shape[0]
    if is_shared:
        q, sinks, padding = fold(q, sinks, padding, kv_heads)
    elif padding is not None:
        padding = padding[:, None]
    narrow = q.dtype == k.dtype == torch.bfloat16 and q.shape[3] % DEPTH == 0
    many = min(q.shape[2], keys) >= SIDE and narrow and has_amx()
    if many and starts is None:
        z, lse = attend_in_tiles(q, k, v, sinks, window, padding, later)
    else:
        z, lse = attend_in_blocks(q, k, v, sinks, window, padding, later, starts)
    return (unfold(z, kv_heads, shape), unfold(lse, kv_heads, shape[:3])) if is_shared else (z, lse)


def attend_in_tiles(
    q: Float[Tensor, "batch head seq head_dim"],
    k: Float[Tensor, "batch kv_head key head_dim"],
    v: Float[Tensor, "batch kv_head key head_dim"],
    sinks: Float[Tensor, "head"],
    window: int | None,
    padding: Int[Tensor, "batch #head"] | None,
    later: int,
) -> tuple[Float[Tensor, "batch head seq head_dim"], Float[Tensor, "batch head seq"]]:
    """Everything in one compiled call, with AMX. q, k and v are bfloat16."""
    batch, heads, seq, head_dim = q.shape
    kv_heads, keys = k.shape[1:3]
    before = keys - seq + later
    window = keys + seq + later if window is None else window  # wider than any distance
    base = min(keys, max(0, before - window + 1))
    padding = torch.zeros(batch, 1) if padding is None else padding
    z, lse = torch.empty_like(q, memory_format=torch.contiguous_format), torch.empty(q.shape[:3])
    follow_torch()
    threads, width = numba.get_num_threads(), -(-(keys - base) // DEPTH) * DEPTH
    attention_kernel()(
        view_as_words(q),
        view_as_words(k),
        view_as_words(v),
        as_numpy(sinks.float()),
        as_numpy(padding.long().expand(batch, heads)),
        before,
        window,
        np.float32(head_dim**-0.5),
        base,
        as_numpy(torch.empty(batch, kv_heads, head_dim, width, dtype=torch.bfloat16)),
        as_numpy(torch.empty(threads, 2, head_dim // 2, SIDE, dtype=torch.uint32)),
        as_numpy(torch.empty(threads, KEYS, TOKENS)),
        as_numpy(torch.empty(threads, 2, KEYS // 2, SIDE, dtype=torch.uint32)),
        as_numpy(torch.empty(threads, head_dim, TOKENS)),
        as_numpy(z),
        as_numpy(lse),
    )
    return z, lse


def view_as_words(x: Float[Tensor, "batch head seq head_dim"]) -> np.ndarray:
    """A bfloat16 tensor as uint16, without a copy if its last axis is contiguous."""
    x = x.detach() if x.stride(-1) == 1 else x.detach().contiguous()
    return x.view(torch.uint16).numpy()


def attend_in_blocks(
    q: Float[Tensor, "batch head seq head_dim"],
    k: Float[Tensor, "batch kv_head key head_dim"],
    v: Float[Tensor, "batch kv_head key head_dim"],
    sinks: Float[Tensor, "head"],
    window: int | None,
    padding: Int[Tensor, "batch #head"] | None,
    later: int,
    starts: Int[Tensor, "#batch seq"] | None,
) -> tuple[Float[Tensor, "batch head seq head_dim"], Float[Tensor, "batch head seq"]]:
    """One block of queries at a time, for any type."""
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    kv_heads, keys = k.shape[1:3]
    batch, heads, seq, head_dim = q.shape
    before = keys - seq + later  # the key slot of query 0; negative if the span is short
    scaled, k, v, sink = q.to(wide) * head_dim**-0.5, k.to(wide), v.to(wide), sinks.to(wide)
    reach = keys if window is None else min(keys, window)
    # With a window, a block also scores about `size` keys that only some of its queries see.
    widest = seq if window is None else max(32, reach)
    size = max(1, min(seq, widest, SCORES // max(1, batch * heads * reach)))
    scratch = scaled.new_empty(batch * heads * size * min(keys, reach + size))
    z = torch.empty_like(scaled)
    lse = scaled.new_empty(batch, heads, seq)
    for begin in range(0, seq, size):
        end = min(begin + size, seq)
        first = 0 if window is None else min(keys, max(0, before + begin - window + 1))
        own = None if starts is None else starts[:, begin:end]
        first = first if own is None else min(keys, max(first, int(own.min())))
        last = max(first, min(keys, before + end))
        # The query heads of a kv head, stacked.
        stack = (batch, kv_heads, heads // kv_heads * (end - begin))
        count = batch * heads * (end - begin) * (last - first)
        scores = scratch[:count].view(*stack, last - first)
        block = scaled[:, :, begin:end].reshape(*stack, head_dim)
        torch.matmul(block, k[:, :, first:last].transpose(-1, -2), out=scores)
        by_head = scores.view(batch, heads, end - begin, last - first)
        mask_scores(by_head, first, before + begin, window, padding, own)

        top = sink[:, None].expand(batch, heads, end - begin)
        if last > first:
            top = torch.maximum(top, by_head.amax(-1))
        top = top.masked_fill(top.isneginf(), 0)  # neither key nor sink: the softmax is empty
        by_head.sub_(top[..., None]).exp_()
        total = by_head.sum(-1) + (sink[:, None] - top).exp()
        mixed = (scores @ v[:, :, first:last]).view(batch, heads, end - begin, head_dim)
        z[:, :, begin:end] = mixed / total.masked_fill(total == 0, 1)[..., None]
        lse[:, :, begin:end] = top + total.log()
    return z.to(q.dtype), lse


def mask_scores(
    scores: Float[Tensor, "batch head seq key"],
    first: int,
    query: int,
    window: int | None,
    padding: Int[Tensor, "batch #head"] | None,
    starts: Int[Tensor, "#batch seq"] | None,
) -> None:
    """Set scores to -inf where a query may not attend.

    The first key is in slot `first`, the first query in slot `query`.
    """
    seq, keys = scores.shape[-2:]
    slot = torch.arange(first, first + keys, device=scores.device)
    distance = torch.arange(query, query + seq, device=scores.device)[:, None] - slot
    hidden = distance < 0
    if window is not None:
        hidden |= distance >= window
    if hidden.any():
        scores.masked_fill_(hidden, -torch.inf)
    if padding is not None:
        scores.masked_fill_(slot < padding[..., None, None], -torch.inf)
    if starts is not None:
        scores.masked_fill_(slot < starts[:, None, :, None], -torch.inf)

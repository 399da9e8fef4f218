"""Gradients of attention on a CPU: one block of queries and keys at a time, in reused buffers.

Like the forward pass without AMX (`attention/cpu.py`) it multiplies with torch. Blocks in which no
query sees a key are skipped. So the time of a sliding layer, or of a row with many samples, is in
proportion to the pairs that see each other.
"""

import torch
from jaxtyping import Float, Int, Int32
from torch import Tensor

from oss_kernels.attention_backward.reference import Gradients, multiply_rows, sum_sink_gradient
from oss_kernels.attention_backward.visible import find_first_keys

QUERIES, KEYS = 64, 1024  # in a block, which has 2 MB of scores in 20b, close to an L2 cache


def attention_backward(
    q: Float[Tensor, "batch head seq head_dim"],
    k: Float[Tensor, "batch kv_head seq head_dim"],
    v: Float[Tensor, "batch kv_head seq head_dim"],
    sinks: Float[Tensor, "head"],
    z: Float[Tensor, "batch head seq head_dim"],
    lse: Float[Tensor, "batch head seq"],
    dz: Float[Tensor, "batch head seq head_dim"],
    *,
    window: int | None = None,
    starts: Int[Tensor, "#batch seq"] | None = None,
) -> Gradients:
    """The operation of `reference.attention_backward`."""
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    batch, kv_heads, seq, head_dim = k.shape
    scale = head_dim**-0.5
    mean = multiply_rows(dz, z)

    def by_group(x: Tensor) -> Tensor:
        return x.to(wide).reshape(batch, kv_heads, -1, *x.shape[2:])

    scaled, changes = by_group(q) * scale, by_group(dz)
    base, means = by_group(lse.masked_fill(lse.isneginf(), 0)), by_group(mean)
    keys, values = k.to(wide), v.to(wide)
    dq = torch.empty_like(scaled)
    dk, dv = (torch.zeros(k.shape, dtype=wide) for _ in range(2))
    first = find_first_keys(batch, seq, window, starts, q.device)
    for row in range(batch):
        for head in range(kv_heads):
            at = row, head
            add_head(
                scaled[at], keys[at], values[at], base[at], means[at], changes[at], first[row],
                dq[at], dk[at], dv[at],
            )  # fmt: skip
    dq = dq.mul_(scale).view(q.shape).to(q.dtype)
    return dq, dk.to(k.dtype), dv.to(v.dtype), sum_sink_gradient(sinks, lse, mean)


def add_head(
    q: Float[Tensor, "group seq head_dim"],
    k: Float[Tensor, "seq head_dim"],
    v: Float[Tensor, "seq head_dim"],
    base: Float[Tensor, "group seq"],
    mean: Float[Tensor, "group seq"],
    dz: Float[Tensor, "group seq head_dim"],
    first: Int32[Tensor, "seq"],
    dq: Float[Tensor, "group seq head_dim"],
    dk: Float[Tensor, "seq head_dim"],
    dv: Float[Tensor, "seq head_dim"],
) -> None:
    """One kv head and the query heads that share it: write dq / scale, add to dk and dv.

    q is scaled. `base` is lse, finite.
    """
    group, seq, head_dim = q.shape
    scratch = q.new_empty(2, group * min(QUERIES, seq) * min(KEYS, seq))
    slot = torch.arange(seq)
    for begin in range(0, seq, QUERIES):
        some = slice(begin, min(begin + QUERIES, seq))
        queries, changes = (x[:, some].reshape(-1, head_dim) for x in (q, dz))  # heads stacked
        sums = torch.zeros_like(queries)
        for key in range(int(first[some].min()), some.stop, KEYS):
            near = slice(key, min(key + KEYS, some.stop))
            size = (group, some.stop - begin, near.stop - key)
            shares, dscores = (x[: group * size[1] * size[2]].view(-1, size[2]) for x in scratch)
            torch.mm(queries, k[near].T, out=shares)
            hidden = (slot[near] > slot[some, None]) | (slot[near] < first[some, None])
            if hidden.any():
                shares.view(size).masked_fill_(hidden, -torch.inf)
            shares.view(size).sub_(base[:, some, None]).exp_()
            torch.mm(changes, v[near].T, out=dscores)
            dscores.view(size).sub_(mean[:, some, None]).mul_(shares.view(size))
            dv[near].addmm_(shares.T, changes)
            dk[near].addmm_(dscores.T, queries)
            sums.addmm_(dscores, k[near])
        dq[:, some] = sums.view(group, -1, head_dim)

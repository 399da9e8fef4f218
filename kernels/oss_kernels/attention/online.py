"""Softmax over keys that come a tile at a time: what both kernels keep for each row, and a step.

    top    the largest logit so far           in units of log2, since exp2 is the instruction
    total  the sum of 2^(logit - top)
    mixed  the sum of 2^(logit - top) * value

When a tile raises `top`, the old sums are multiplied by 2^(old top - new top). Nothing else is
needed: no row of scores is ever whole, or in memory. Source: arXiv 1805.02867, and arXiv 2205.14135
for its use here.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
NOTHING = tl.constexpr(float("-inf"))


@triton.jit
def begin(top, HEAD_DIM: tl.constexpr):
    """(top, total, mixed) of rows [ROWS] that saw only a logit `top` with no value: a sink."""
    total = tl.where(top == NOTHING, 0.0, 1.0)
    return top, total, tl.zeros([top.shape[0], HEAD_DIM], tl.float32)


@triton.jit
def step(q, k, v, first, last, slot, scale, top, total, mixed):
    """The same after a tile: q [ROWS, HEAD_DIM]; k and v [KEYS, HEAD_DIM], in slots `slot`.

    Row r sees slots first[r] to last[r]. scale: of q·k, times log2(e).
    """
    scores = tl.dot(q, tl.trans(k), input_precision="ieee")
    visible = (slot[None, :] >= first[:, None]) & (slot[None, :] <= last[:, None])
    scores = tl.where(visible, scores, NOTHING)
    higher = tl.maximum(top, tl.max(scores, axis=1) * scale)
    # A row that has seen nothing yet stands at -inf, and -inf - -inf would be NaN.
    base = tl.where(higher == NOTHING, 0.0, higher)
    shares = tl.exp2(scores * scale - base[:, None])
    kept = tl.exp2(top - base)
    total = total * kept + tl.sum(shares, axis=1)
    mixed = tl.dot(shares.to(v.dtype), v, mixed * kept[:, None], input_precision="ieee")
    return higher, total, mixed


@triton.jit
def end(top, total, mixed):
    """(z [ROWS, HEAD_DIM], lse [ROWS], in natural units)."""
    safe = tl.where(total == 0.0, 1.0, total)  # a row without keys or sink: z = 0, lse = -inf
    return mixed / safe[:, None], (top + tl.log2(safe)) * LN2

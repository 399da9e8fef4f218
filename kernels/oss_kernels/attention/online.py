"""The online softmax: attention over keys that arrive one tile at a time.

Both kernels keep three quantities for each row, a query of one head:

    top    the largest logit so far, in units of log2 because the GPU's instruction is exp2
    total  the sum of 2^(logit - top)
    mixed  the sum of 2^(logit - top) * value

When a tile raises `top`, the old sums are multiplied by 2^(old top - new top). So no complete row
of scores is ever needed. Source: arXiv 1805.02867, and arXiv 2205.14135 for attention.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
NOTHING = tl.constexpr(float("-inf"))


@triton.jit
def begin_softmax(top, HEAD_DIM: tl.constexpr):
    """(top, total, mixed) of rows [ROWS] before any key: the only logit is the sink, `top`."""
    total = tl.where(top == NOTHING, 0.0, 1.0)
    return top, total, tl.zeros([top.shape[0], HEAD_DIM], tl.float32)


@triton.jit
def update_softmax(q, k, v, first, last, slot, scale, top, total, mixed):
    """(top, total, mixed) after one more tile of keys.

    q is [ROWS, HEAD_DIM]; k and v are [KEYS, HEAD_DIM] and in the key slots `slot`. Row r sees
    slots first[r] to last[r]. scale is log2(e) / sqrt(head_dim), the factor of q·k.
    """
    scores = tl.dot(q, tl.trans(k), input_precision="ieee")
    visible = (slot[None, :] >= first[:, None]) & (slot[None, :] <= last[:, None])
    scores = tl.where(visible, scores, NOTHING)
    higher = tl.maximum(top, tl.max(scores, axis=1) * scale)
    # In a row that has seen nothing yet, top is -inf, and -inf - -inf would be NaN.
    base = tl.where(higher == NOTHING, 0.0, higher)
    shares = tl.exp2(scores * scale - base[:, None])
    kept = tl.exp2(top - base)
    total = total * kept + tl.sum(shares, axis=1)
    mixed = tl.dot(shares.to(v.dtype), v, mixed * kept[:, None], input_precision="ieee")
    return higher, total, mixed


@triton.jit
def finish_softmax(top, total, mixed):
    """(z [ROWS, HEAD_DIM], lse [ROWS]); lse is a natural logarithm."""
    safe = tl.where(total == 0.0, 1.0, total)  # neither keys nor sink: z = 0, lse = -inf
    return mixed / safe[:, None], (top + tl.log2(safe)) * LN2

"""Gumbel noise for sampling, and the second kernel: the best id of a token over all blocks.

One program processes one token. It reads two numbers per block: 8 bytes for 64 ids.
"""

import triton
import triton.language as tl


@triton.jit
def gumbel(seed, at, ids):
    """-log(E) with E = -log(1 - u). Small u use the series of E, since 1 - u would lose digits."""
    uniform = tl.rand(seed, (at.to(tl.int64) << 32) | ids)
    uniform = tl.maximum(uniform, 2.3283064365386963e-10)  # 2^-32: the noise stays finite
    series = uniform * (1 + uniform * (0.5 + uniform * 0.3333333333))  # the next term is u^4 / 4
    exponential = tl.where(uniform < 0.015625, series, -tl.log(1 - uniform))
    return -tl.log(exponential)


@triton.jit
def log_sum_exp(x):
    """log(sum(exp(x))) along the first axis."""
    top = tl.max(x, axis=0)
    return tl.log(tl.sum(tl.exp(x - tl.expand_dims(top, 0)), axis=0)) + top


@triton.jit
def best_of_all_kernel(
    scores, ids, logits, sums, out_ids, out_logprobs, blocks, BLOCKS: tl.constexpr
):
    token = tl.program_id(0).to(tl.int64)
    block = tl.arange(0, BLOCKS)
    exists, first = block < blocks, token * blocks
    score = tl.load(scores + first + block, mask=exists, other=float("-inf"))
    total = tl.load(sums + first + block, mask=exists, other=float("-inf"))
    best = tl.argmax(score, axis=0, tie_break_left=True)  # the lowest block has the lowest id
    tl.store(out_ids + token, tl.load(ids + first + best).to(tl.int64))
    tl.store(out_logprobs + token, tl.load(logits + first + best) - log_sum_exp(total))

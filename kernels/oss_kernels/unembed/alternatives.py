"""The most likely ids of a token and their log-probabilities, most likely first, on the device.

One program processes one token. It starts from the largest logit of every block of 64 ids (12.6 KB
for a vocabulary of 201,088). Each rank takes the block with the largest remaining logit, reads that
block again (256 bytes), and replaces the block's largest logit by its next one. So a rank costs one
short read instead of a pass over the vocabulary. Of equal logits the lowest id comes first.
"""

import triton
import triton.language as tl
from torch import Tensor

from oss_kernels.launch import Launch
from oss_kernels.unembed.draw import log_sum_exp

BLOCK = 64  # ids per block, as in `kernel.py`


@triton.jit
def alternatives_kernel(
    all_logits, peaks, sums, ids, logprobs, vocab, blocks, RANKS: tl.constexpr,
    BLOCKS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    block, place = tl.arange(0, BLOCKS), tl.arange(0, BLOCK)
    exists, first = block < blocks, token * blocks
    left = tl.load(peaks + first + block, mask=exists, other=float("-inf"))
    total = log_sum_exp(tl.load(sums + first + block, mask=exists, other=float("-inf")))
    logit, id = float("inf"), 0  # of the rank before; every id comes after it
    for rank in range(RANKS):
        best = tl.argmax(left, axis=0, tie_break_left=True)
        member = best * BLOCK + place
        values = tl.load(
            all_logits + token * vocab + member, mask=member < vocab, other=float("-inf")
        )
        after = (values < logit) | ((values == logit) & (member > id))
        values = tl.where(after, values, float("-inf"))
        logit = tl.max(values, axis=0)
        id = best * BLOCK + tl.argmax(values, axis=0, tie_break_left=True)
        tl.store(ids + token * RANKS + rank, id.to(tl.int64))
        tl.store(logprobs + token * RANKS + rank, logit - total)
        next_one = tl.max(tl.where(member == id, float("-inf"), values), axis=0)
        left = tl.where(block == best, next_one, left)


def launch_alternatives(
    all_logits: Tensor, peaks: Tensor, sums: Tensor, ids: Tensor, logprobs: Tensor
) -> Launch:
    """The launch: one program per token. ids and logprobs are [token rank].

    peaks and sums [token block] are the largest logit of every block, and the log of its sum of
    exponentials. All tensors are contiguous.
    """
    (tokens, vocab), blocks = all_logits.shape, peaks.shape[1]
    return Launch(
        alternatives_kernel,
        (tokens,),
        {
            "all_logits": all_logits,
            "peaks": peaks,
            "sums": sums,
            "ids": ids,
            "logprobs": logprobs,
            "vocab": vocab,
            "blocks": blocks,
        },
        {"RANKS": ids.shape[1], "BLOCKS": triton.next_power_of_2(blocks), "BLOCK": BLOCK},
        num_warps=8,
    )

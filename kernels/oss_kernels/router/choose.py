"""The choice of experts from their logits, for use inside Triton kernels."""

import triton
import triton.language as tl


@triton.jit
def choose_experts(logits, experts, SLOTS: tl.constexpr, SLOTS_PADDED: tl.constexpr):
    """(ids, weights) [TOKENS, SLOTS_PADDED] from logits [TOKENS, EXPERTS], largest logit first.

    EXPERTS is `experts` padded to a power of two; the padding is never chosen. NaN comes first, as
    in torch, and of equal logits the lower expert. Weights are the softmax of the chosen logits;
    slots from SLOTS on have weight 0.
    """
    TOKENS: tl.constexpr = logits.shape[0]
    EXPERTS: tl.constexpr = logits.shape[1]
    expert = tl.arange(0, EXPERTS)
    order = tl.where(logits == logits, logits, float("inf"))
    left = tl.broadcast_to((expert < experts)[None, :], (TOKENS, EXPERTS))  # not chosen yet
    slot = tl.arange(0, SLOTS_PADDED)
    chosen = tl.full((TOKENS, SLOTS_PADDED), float("-inf"), tl.float32)
    ids = tl.zeros((TOKENS, SLOTS_PADDED), tl.int32)
    for s in range(SLOTS):
        highest = tl.max(tl.where(left, order, float("-inf")), axis=1, keep_dims=True)
        # Of equal logits the lowest expert. The mask is needed because a logit may be -inf.
        best = tl.where(left & (order == highest), expert[None, :], EXPERTS)
        best = tl.min(best, axis=1, keep_dims=True)  # [TOKENS, 1]
        is_best = expert[None, :] == best
        # Triton cannot index a tensor, so a sum with one nonzero term reads the value.
        value = tl.sum(tl.where(is_best, logits, 0.0), axis=1, keep_dims=True)
        chosen = tl.where(slot[None, :] == s, value, chosen)
        ids = tl.where(slot[None, :] == s, best, ids)
        left &= expert[None, :] != best
    exponentials = tl.exp(chosen - tl.max(chosen, axis=1, keep_dims=True))  # 0 in the padding
    return ids, exponentials / tl.sum(exponentials, axis=1, keep_dims=True)

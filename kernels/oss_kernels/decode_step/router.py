"""The router's choice: the best few experts, and their weights."""

import numpy as np
from numba import njit

from oss_kernels.cpu.exponential import exponential


@njit(nogil=True)
def choose_experts(logits, ids):
    """ids [slot] = the experts with the largest logits, largest first; return the margin.

    Of equal logits the lowest expert is first, and a NaN is before all numbers, as in the Triton
    kernel. The margin is the last chosen logit minus the best one not chosen, or infinity if every
    expert is chosen.
    """
    slots, best = ids.size, 0
    for slot in range(min(slots + 1, logits.size)):
        best = -1
        for expert in range(logits.size):
            if is_chosen(ids, slot, expert):
                continue
            if best < 0 or is_before(logits[expert], logits[best]):
                best = expert
        if slot < slots:
            ids[slot] = best
    if slots == logits.size:
        return np.float32(np.inf)
    return logits[ids[slots - 1]] - logits[best]


@njit(nogil=True)
def is_before(a, b):
    return a > b or (a != a and b == b)


@njit(nogil=True)
def is_chosen(ids, count, expert):
    found = False
    for slot in range(count):
        found |= ids[slot] == expert
    return found


@njit(nogil=True, error_model="numpy")
def weigh_experts(logits, ids, weights):
    """weights [slot] = the softmax over the chosen logits only, in float32."""
    top, total = logits[ids[0]], np.float32(0)
    for slot in range(ids.size):
        weights[slot] = exponential(logits[ids[slot]] - top)
        total += weights[slot]
    for slot in range(ids.size):
        weights[slot] /= total

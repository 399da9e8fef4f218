"""Attention of the new token: rotation, cache write and softmax with sink, one kv head at a time.

A kv head's group of query heads reads each key and each value once. Keys are read in blocks whose
scores stay in the L1 cache. The softmax runs along with the blocks (online softmax): if a block has
a higher score than all before it, the sums so far are scaled down. The sink is the first score.
"""

import numpy as np
from numba import njit
from numba.extending import overload

from oss_kernels.cpu.exponential import exponential
from oss_kernels.cpu.numbers import load_float32, round_as, store_exactly
from oss_kernels.decode_step.heads import add_values, count_lanes, exponentiate, score_keys

BLOCK = 64  # keys
LOWEST = np.float32(-1e30)  # instead of minus infinity, whose difference with itself is not zero


@njit(nogil=True)
def rotate_element(x, i, cos, sin):
    """Element i of x cos + swapped sin, where `swapped` exchanges the halves of x.

    `cos` is (cos, cos) and `sin` is (-sin, sin) for the two halves of a head. Both products and
    the sum are rounded to the dtype of x, as in the reference model.
    """
    half = x.size // 2
    other = i + half if i < half else i - half
    own = round_as(load_float32(x, i) * load_float32(cos, i), x)
    swapped = round_as(load_float32(x, other) * load_float32(sin, i), x)
    return round_as(own + swapped, x)


@njit(nogil=True)
def store_key_and_value(k, v, cos, sin, key, value):
    """Write the new token's key, rotated, and its value into their slots of the cache."""
    for i in range(k.size):
        store_exactly(key, i, rotate_element(k, i, cos, sin))
        value[i] = v[i]


@njit(nogil=True, error_model="numpy")
def rotate_and_scale(q, cos, sin, out):
    """out = the rotated query / sqrt(head_dim), in float32."""
    scale = np.float32(1) / np.sqrt(np.float32(q.size))
    for i in range(q.size):
        out[i] = rotate_element(q, i, cos, sin) * scale


def attend(head_dim, group, queries, keys_at, values_at, like, count, sinks, scores, z, masses):
    """Softmax-weighted sums of the values, for the query heads of one kv head.

    head_dim and group are compile-time constants.

    Args:
        queries: rotated and scaled, float32 [group * head_dim].
        keys_at, values_at: addresses of the first visible key and value, `count` of them in a row,
            in the dtype of the number `like`.
        sinks: [group], in the dtype of `like`.
        scores: overwritten; float32 [BLOCK * count_lanes(group)].
        z: the result, float32 [group * head_dim].
        masses: the sinks' shares of the softmax, float32 [group].
    """
    raise NotImplementedError("only code compiled by numba can call this")


@overload(attend, prefer_literal=True, jit_options={"nogil": True, "error_model": "numpy"})
def _attend(head_dim, group, queries, keys_at, values_at, like, count, sinks, scores, z, masses):
    dim, heads, step = head_dim.literal_value, group.literal_value, like.bitwidth // 8
    lanes = count_lanes(heads)

    def attend(head_dim, group, queries, keys_at, values_at, like, count, sinks, scores, z, masses):
        tops, before = np.zeros(lanes, np.float32), np.zeros(lanes, np.float32)
        totals = np.zeros(lanes, np.float32)
        for head in range(heads):
            sink = load_float32(sinks, head)
            tops[head] = max(sink, LOWEST)
            totals[head] = exponential(sink - tops[head])  # 1, or 0 without a sink
        for i in range(z.size):
            z[i] = 0
        tops_at, scores_at, z_at = tops.ctypes.data, scores.ctypes.data, z.ctypes.data
        for first in range(0, count, BLOCK):
            size = min(BLOCK, count - first)
            keys, values = keys_at + first * dim * step, values_at + first * dim * step
            for head in range(lanes):
                before[head] = tops[head]
            score_keys(dim, heads, queries.ctypes.data, keys, like, size, scores_at, tops_at)
            for head in range(heads):
                if tops[head] != before[head]:
                    shrink = exponential(before[head] - tops[head])
                    totals[head] *= shrink
                    for i in range(head * dim, (head + 1) * dim):
                        z[i] *= shrink
            exponentiate(heads, scores_at, size, tops_at, totals.ctypes.data)
            add_values(dim, heads, scores_at, values, like, size, z_at)
        for head in range(heads):
            masses[head] = exponential(load_float32(sinks, head) - tops[head]) / totals[head]
            for i in range(head * dim, (head + 1) * dim):
                z[i] /= totals[head]

    return attend

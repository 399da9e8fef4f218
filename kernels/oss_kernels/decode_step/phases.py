"""What an item of each phase computes, from one row `t` of the plan's table.

Every phase reads only what earlier phases wrote, so its items may run in any order on any thread.
`like` is a number of the model's dtype. A layer has phases 0 to 8; the last row has 0 and 1.
"""

import numpy as np
from numba import njit
from numba.extending import overload

from oss_kernels.cpu.numbers import round_as, store_exactly
from oss_kernels.decode_step import table as at
from oss_kernels.decode_step.attention import BLOCK, attend, rotate_and_scale, store_key_and_value
from oss_kernels.decode_step.dense import multiply, multiply_and_add
from oss_kernels.decode_step.experts import COMPILED
from oss_kernels.decode_step.heads import count_lanes
from oss_kernels.decode_step.memory import vector_at
from oss_kernels.decode_step.rms_norm import rms_norm
from oss_kernels.decode_step.work import claim, count_rows, finish

FLOAT, INT = np.float32(0), np.int64(0)  # types for `vector_at`


@njit(nogil=True)
def embed(t, like, token):
    """The residual stream = the token's row of the embedding. Part of phase 0 of layer 0."""
    x = vector_at(t[at.STREAM], t[at.HIDDEN], like)
    row = vector_at(t[at.EMBEDDING] + x.itemsize * x.size * token, x.size, like)
    for i in range(x.size):
        x[i] = row[i]


@njit(nogil=True)
def normalize(t, like, scale_at):
    """The input of a dense matrix = the norm of the residual stream. One item."""
    x = vector_at(t[at.STREAM], t[at.HIDDEN], like)
    eps = vector_at(t[at.CONSTANTS], 3, FLOAT)[0]
    out = vector_at(t[at.DENSE_INPUT], t[at.DENSE_SIZE], FLOAT)
    places = vector_at(t[at.HIDDEN_PLACES], x.size, INT)
    rms_norm(x, vector_at(scale_at, x.size, like), eps, out, places)


@njit(nogil=True)
def start_layer(t, like, layer, token):
    """Phase 0, one item: attention's norm."""
    done = 0
    if claim(t[at.COUNTERS + 0]) == 0:
        if layer == 0:
            embed(t, like, token)
        normalize(t, like, t[at.ATTN_NORM])
        done = 1
    finish(t[at.COUNTERS + 0], done, 1)


@njit(nogil=True)
def project_qkv(t, like, threads):
    """Phase 1: rows of the qkv matrix."""
    count = (t[at.HEAD_COUNT] + 2 * t[at.KV_HEADS]) * t[at.HEAD_DIM]
    x = vector_at(t[at.DENSE_INPUT], t[at.DENSE_SIZE], FLOAT)
    bias, out = vector_at(t[at.QKV_BIAS], count, like), vector_at(t[at.HEADS], count, like)
    rows = count_rows(count, threads)
    items, done = -(-count // rows), 0
    item = claim(t[at.COUNTERS + 1])
    while item < items:
        first, end = item * rows, min((item + 1) * rows, count)
        multiply(x, t[at.QKV], t[at.HIDDEN], like, bias, first, end, out)
        done += 1
        item = claim(t[at.COUNTERS + 1])
    finish(t[at.COUNTERS + 1], done, items)


def attend_with_group(head_dim, group, t, like, kv_head, length):
    """One item of phase 2: a kv head with its group of query heads, from HEADS to OUT_INPUT."""
    raise NotImplementedError("only code compiled by numba can call this")


@overload(attend_with_group, prefer_literal=True, jit_options=COMPILED)
def _attend_with_group(head_dim, group, t, like, kv_head, length):
    dim, heads, step = head_dim.literal_value, group.literal_value, like.bitwidth // 8
    lanes = count_lanes(heads)

    def attend_with_group(head_dim, group, t, like, kv_head, length):
        size = dim * step  # bytes of one head
        cos = vector_at(t[at.COS] + length * size, dim, like)
        sin = vector_at(t[at.SIN] + length * size, dim, like)
        k_at = t[at.HEADS] + (t[at.HEAD_COUNT] + kv_head) * size
        v_at = k_at + t[at.KV_HEADS] * size
        keys_at = t[at.TAIL] + kv_head * t[at.CAPACITY] * size
        values_at = keys_at + t[at.KV_HEADS] * t[at.CAPACITY] * size
        store_key_and_value(
            vector_at(k_at, dim, like),
            vector_at(v_at, dim, like),
            cos,
            sin,
            vector_at(keys_at + length * size, dim, like),
            vector_at(values_at + length * size, dim, like),
        )
        first = kv_head * heads
        queries = vector_at(t[at.QUERIES] + 4 * first * dim, heads * dim, FLOAT)
        for head in range(heads):
            q = vector_at(t[at.HEADS] + (first + head) * size, dim, like)
            rotate_and_scale(q, cos, sin, queries[head * dim :][:dim])
        oldest = max(0, length + 1 - t[at.WINDOW]) if t[at.WINDOW] else 0
        sinks = vector_at(t[at.SINKS] + first * step, heads, like)
        z = vector_at(t[at.Z] + 4 * first * dim, heads * dim, FLOAT)
        attend(
            dim,
            heads,
            queries,
            keys_at + oldest * size,
            values_at + oldest * size,
            like,
            length + 1 - oldest,
            sinks,
            vector_at(t[at.SCORES] + 4 * kv_head * lanes * BLOCK, lanes * BLOCK, FLOAT),
            z,
            vector_at(t[at.SINK_MASSES] + 4 * first, heads, FLOAT),
        )
        out = vector_at(t[at.OUT_INPUT], t[at.OUT_SIZE], FLOAT)
        places = vector_at(t[at.OUT_PLACES] + 8 * first * dim, heads * dim, INT)
        for i in range(heads * dim):
            store_exactly(out, places[i], round_as(z[i], sinks))

    return attend_with_group


def attend_with_all(head_dim, group, t, like, length):
    """Phase 2: kv heads. head_dim and group are compile-time constants."""
    raise NotImplementedError("only code compiled by numba can call this")


@overload(attend_with_all, prefer_literal=True, jit_options=COMPILED)
def _attend_with_all(head_dim, group, t, like, length):
    dim, heads = head_dim.literal_value, group.literal_value

    def attend_with_all(head_dim, group, t, like, length):
        items, done = t[at.KV_HEADS], 0
        item = claim(t[at.COUNTERS + 2])
        while item < items:
            attend_with_group(dim, heads, t, like, item, length)
            done += 1
            item = claim(t[at.COUNTERS + 2])
        finish(t[at.COUNTERS + 2], done, items)

    return attend_with_all


@njit(nogil=True)
def project_out(t, like, threads):
    """Phase 3: rows of the out matrix, added to the residual stream."""
    count, columns = t[at.HIDDEN], t[at.HEAD_COUNT] * t[at.HEAD_DIM]
    x = vector_at(t[at.OUT_INPUT], t[at.OUT_SIZE], FLOAT)
    bias, stream = vector_at(t[at.OUT_BIAS], count, like), vector_at(t[at.STREAM], count, like)
    rows = count_rows(count, threads)
    items, done = -(-count // rows), 0
    item = claim(t[at.COUNTERS + 3])
    while item < items:
        first, end = item * rows, min((item + 1) * rows, count)
        multiply_and_add(x, t[at.OUT], columns, like, bias, first, end, stream)
        done += 1
        item = claim(t[at.COUNTERS + 3])
    finish(t[at.COUNTERS + 3], done, items)

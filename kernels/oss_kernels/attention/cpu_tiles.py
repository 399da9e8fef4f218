"""Attention of many queries on a CPU with AMX: 32 queries of a head and 128 keys at a time.

Scores are keys times queries, so queries are the columns of every matrix:

    scores   [128 keys, 32 queries]       = k · qᵀ
    shares   [128 keys, 32 queries]       = softmax over keys so far, as bfloat16
    z        [head_dim, 32 queries]      += vᵀ · shares

k is read as it is stored. v is transposed once for all queries. Keys that no query of a block sees
are not read.
"""

from functools import cache

import numpy as np
from numba import njit, prange, types

from oss_kernels.cpu import amx
from oss_kernels.cpu.numbers import store_rounded
from oss_kernels.cpu.softmax import multiply_columns, softmax_block
from oss_kernels.cpu.sources import fingerprint

KEYS = 128  # in a block: their scores are 16 KB
LOWEST = np.float32(-1e30)  # instead of minus infinity, whose difference with itself is not zero


@njit(nogil=True)
def arrange_queries(q, first, out):
    """q [seq, head_dim] from query `first` on, to out [tile, head_dim / 2, 16]; zeros after seq."""
    for tile in range(len(out)):
        for place in range(amx.SIDE):
            query = first + tile * amx.SIDE + place
            for i in range(out.shape[1]):
                word = np.uint32(0)
                if query < len(q):
                    word = np.uint32(q[query, 2 * i])
                    word |= np.uint32(q[query, 2 * i + 1]) << np.uint32(16)
                out[tile, i, place] = word


@njit(nogil=True)
def score_keys(k, first, count, queries, padded, scores):
    """scores [count, 32] = keys from `first` on times queries. count is a multiple of 32."""
    head_dim, stride = k.shape[1], queries.strides[0]
    for row in range(0, count, amx.ROWS):
        at, line = k.ctypes.data + (first + row) * k.strides[0], k.strides[0]
        if first + row + amx.ROWS > len(k):  # there may be no memory after the last key
            for key in range(first + row, len(k)):
                for i in range(head_dim):
                    padded[key - first - row, i] = k[key, i]
            at, line = padded.ctypes.data, padded.strides[0]
        out = scores.ctypes.data + row * scores.strides[0]
        steps = head_dim // amx.DEPTH
        amx.multiply_block(2, True, at, line, 64, queries.ctypes.data, stride, steps, out)


@njit(nogil=True)
def add_values(transposed, first, count, shares, sums):
    """sums [head_dim, 32] += values `first` to `first` + `count` - 1 times shares."""
    line, stride = transposed.strides[0], shares.strides[0]
    for row in range(0, len(transposed), amx.ROWS):
        at = transposed.ctypes.data + row * line + 2 * first
        out = sums.ctypes.data + row * sums.strides[0]
        steps = count // amx.DEPTH
        amx.multiply_block(2, False, at, line, 64, shares.ctypes.data, stride, steps, out)


@njit(nogil=True, error_model="numpy")
def divide_sums(sums, largest, totals, first, z, lse):
    """Write z [seq, head_dim] and lse [seq] of up to 32 queries from query `first` on."""
    for i in range(min(amx.TOKENS, len(lse) - first)):
        total = totals[i] if totals[i] != 0 else np.float32(1)  # neither key nor sink: z = 0
        for n in range(len(sums)):
            store_rounded(z, (first + i, n), sums[n, i] / total)
        lse[first + i] = largest[i] + np.log(totals[i])


@njit(nogil=True)
def attend_head(
    q, k, sink, padding, before, window, scale, base, transposed,
    queries, scores, shares, sums, z, lse
):  # fmt: skip
    """The queries of one head, q [seq, head_dim]; see the kernel for the other arguments."""
    seq, keys = len(q), len(k)
    padded = np.zeros((amx.ROWS, k.shape[1]), np.uint16)
    largest, totals = np.empty(amx.TOKENS, np.float32), np.empty(amx.TOKENS, np.float32)
    factors = np.empty(amx.TOKENS, np.float32)
    oldest, newest = np.empty(amx.TOKENS, np.int32), np.empty(amx.TOKENS, np.int32)
    for first in range(0, seq, amx.TOKENS):
        arrange_queries(q, first, queries)
        for i in range(amx.TOKENS):
            largest[i] = max(sink, LOWEST)
            totals[i] = np.exp(sink - largest[i])
            for n in range(len(sums)):
                sums[n, i] = 0
        begin = max(before + first - window + 1, padding, base)
        begin = base + (begin - base) // amx.ROWS * amx.ROWS
        end = min(before + first + amx.TOKENS, keys)
        for key in range(begin, end, KEYS):
            count = min(KEYS, -(-(end - key) // amx.ROWS) * amx.ROWS)
            score_keys(k, key, count, queries, padded, scores)
            for i in range(amx.TOKENS):
                slot = before + first + i
                oldest[i] = max(slot - window + 1, padding) - key
                newest[i] = min(slot, keys - 1) - key
            for half in range(2):
                at = 64 * half  # bytes of 16 numbers
                softmax_block(
                    scores.ctypes.data + at, count, scale,
                    oldest.ctypes.data + at, newest.ctypes.data + at,
                    largest.ctypes.data + at, totals.ctypes.data + at,
                    factors.ctypes.data + at, shares.ctypes.data + half * shares.strides[0],
                )  # fmt: skip
            multiply_columns(sums.ctypes.data, len(sums), factors.ctypes.data)
            add_values(transposed, key - base, count, shares, sums)
        divide_sums(sums, largest, totals, first, z, lse)


@njit(nogil=True)
def transpose_values(v, base, transposed):
    """transposed [head_dim, key] = v [key, head_dim] from key `base` on; zeros after the last."""
    for key in range(transposed.shape[1]):
        for i in range(len(transposed)):
            transposed[i, key] = v[base + key, i] if base + key < len(v) else 0


@cache
def attention_kernel():
    """The compiled kernel. bfloat16 is uint16; queries and shares have two of them in a uint32."""
    sources = fingerprint()
    strided, packed = types.uint16[:, :, :, :], types.uint16[:, :, :, ::1]
    words, number, whole = types.uint32[:, :, :, ::1], types.float32, types.int64
    numbers = number[:, :, ::1]
    signature = types.void(
        strided, strided, strided, number[::1], whole[:, ::1], whole, whole, number, whole,
        packed, words, numbers, words, numbers, packed, numbers,
    )  # fmt: skip

    # With a signature, arrays of any strides share one compiled kernel.
    @njit(signature, parallel=True, nogil=True, cache=True)
    def kernel(
        q,  # [batch head seq head_dim]
        k,  # [batch kv_head key head_dim], the last axis contiguous
        v,
        sinks,  # [head]
        padding,  # [batch head]
        before,  # the key slot of query 0
        window,
        scale,
        base,  # the first key that a query sees
        transposed,  # overwritten: v as [batch kv_head head_dim key], to a multiple of 32 keys
        queries,  # overwritten: [thread 2 head_dim/2 16]
        scores,  # overwritten: [thread KEYS 32]
        shares,  # overwritten: [thread 2 KEYS/2 16]
        sums,  # overwritten: [thread head_dim 32]
        z,  # [batch head seq head_dim]
        lse,  # [batch head seq]
    ):
        _ = sources  # makes numba recompile when a file in `cpu/` changes
        heads, kv_heads, threads = q.shape[1], k.shape[1], len(queries)
        for index in prange(k.shape[0] * kv_heads):
            row, head = index // kv_heads, index % kv_heads
            transpose_values(v[row, head], base, transposed[row, head])

        count = q.shape[0] * heads
        for thread in prange(threads):
            amx.open_tiles()
            for index in range(count * thread // threads, count * (thread + 1) // threads):
                row, head = index // heads, index % heads
                kv_head = head // (heads // kv_heads)
                attend_head(
                    q[row, head], k[row, kv_head], sinks[head], padding[row, head],
                    before, window, scale, base, transposed[row, kv_head],
                    queries[thread], scores[thread], shares[thread], sums[thread],
                    z[row, head], lse[row, head],
                )  # fmt: skip
            amx.close_tiles()

    return kernel

"""Attention of one or a few queries in Triton: z = softmax(q·k / sqrt(head_dim), sink) v.

The keys are split among programs, and the results are merged:

               key slots ->
    kv head 0  [ split 0 ][ split 1 ][ split 2 ]    <- one program each: z and lse of these keys
    kv head 1  [ split 0 ][ split 1 ][ split 2 ]
                     \\         |         /
                       merge: z and lse of all      <- one program per query and head

A token has only 8 kv heads, far fewer than a GPU has processors, so the keys are split too. All
query heads of a group share a program, so k and v are read from memory once. Their 8 rows are
padded to 16, the fewest that a matrix instruction takes. One query does 8 FLOP per byte, so memory
is the limit.

The sink is part of split 0 only. With a single split, as in a sliding layer, its result is final
and nothing is merged. The number of splits depends on sizes only, so equal inputs give equal bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from oss_kernels.attention.layout import make_inputs
from oss_kernels.attention.online import (
    LOG2E,
    NOTHING,
    begin_softmax,
    finish_softmax,
    update_softmax,
)
from oss_kernels.launch import Launch

MIN_SPLIT = 128  # keys: the window of gpt-oss; 32 KB of k and v in bfloat16
MAX_SPLITS = 64
KEYS = 32  # per step of the loop


CONTEXT = ("seq", "keys", "before", "window", "begin_slot", "split_keys", "splits")
"""Sizes that change as a text grows. Triton would compile again for 1 and for multiples of 16."""


@triton.jit(do_not_specialize=CONTEXT)
def split_kernel(
    q, k, v, sinks, padding, lengths, z, lse,
    q_batch, q_head, q_seq, k_batch, k_head, k_key, v_batch, v_head, v_key,  # strides
    heads, seq, keys, before, window, scale, begin_slot, split_keys,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr, DOT_DTYPE: tl.constexpr,
):  # fmt: skip
    kv_heads = heads // GROUP
    batch = (tl.program_id(0) // kv_heads).to(tl.int64)
    kv_head = (tl.program_id(0) % kv_heads).to(tl.int64)
    split = tl.program_id(1)

    if lengths is not None:  # decided at compile time; see `step.py`
        keys = tl.minimum(tl.load(lengths + batch), keys)
        before = keys - seq
        window = keys
        share = tl.cdiv(keys, tl.num_programs(1))
        split_keys = tl.maximum(split_keys, tl.cdiv(share, KEYS) * KEYS)

    # Rows are the queries of the group's first head, then those of its second, and so on.
    row = tl.arange(0, ROWS)
    column = tl.arange(0, HEAD_DIM)
    head = kv_head * GROUP + row // seq
    query = row % seq
    real = row < GROUP * seq
    batches = tl.num_programs(0) // kv_heads
    part = split * batches + batch
    lse_rows = lse + (part * heads + head) * seq + query
    if (split > 0) & (begin_slot + split * split_keys >= keys):  # no keys are left for this split
        tl.store(lse_rows, tl.full([ROWS], NOTHING, tl.float32), mask=real)
        return
    q_rows = q + batch * q_batch + head[:, None] * q_head + query[:, None] * q_seq
    # [ROWS, HEAD_DIM]
    q_tile = tl.load(q_rows + column, mask=real[:, None], other=0.0).to(DOT_DTYPE)

    padded = 0
    if padding is not None:
        padded = tl.load(padding + batch).to(tl.int32)
    first = tl.maximum(before + query - window + 1, padded)
    lower = tl.maximum(begin_slot + split * split_keys, padded)
    upper = tl.minimum(begin_slot + (split + 1) * split_keys, keys)
    last = tl.minimum(before + query, upper - 1)  # the zeros loaded after the split are not keys

    sink = tl.load(sinks + head, mask=real, other=0.0).to(tl.float32) * LOG2E
    top, total, mixed = begin_softmax(tl.where(split == 0, sink, NOTHING), HEAD_DIM)
    tile_row = tl.arange(0, KEYS)
    k_rows = k + batch * k_batch + kv_head * k_head + lower.to(tl.int64) * k_key
    v_rows = v + batch * v_batch + kv_head * v_head + lower.to(tl.int64) * v_key
    k_rows += tile_row[:, None] * k_key + column
    v_rows += tile_row[:, None] * v_key + column
    for start in range(lower, upper, KEYS):
        slot = start + tile_row
        held = (slot < upper)[:, None]
        # k_tile and v_tile: [KEYS, HEAD_DIM]
        k_tile = tl.load(k_rows, mask=held, other=0.0).to(DOT_DTYPE)
        v_tile = tl.load(v_rows, mask=held, other=0.0).to(DOT_DTYPE)
        top, total, mixed = update_softmax(
            q_tile, k_tile, v_tile, first, last, slot, scale, top, total, mixed
        )
        k_rows += KEYS * k_key
        v_rows += KEYS * v_key

    z_tile, lse_tile = finish_softmax(top, total, mixed)
    z_rows = z + ((part * seq + query[:, None]) * heads + head[:, None]) * HEAD_DIM
    tl.store(z_rows + column, z_tile, mask=real[:, None])
    tl.store(lse_rows, lse_tile, mask=real)


@triton.jit(do_not_specialize=CONTEXT[:1] + CONTEXT[-1:])
def merge_kernel(
    z_parts, lse_parts, z, lse, heads, seq, splits, HEAD_DIM: tl.constexpr, SPLITS: tl.constexpr
):
    """z = sum of z_s * e^lse_s / sum of e^lse_s and lse = log(sum of e^lse_s), for one row of z."""
    place = tl.program_id(0).to(tl.int64)  # the index of a row of z: [batch seq head]
    head, query, batch = place % heads, place // heads % seq, place // heads // seq
    lse_place = (batch * heads + head) * seq + query
    rows = tl.num_programs(0).to(tl.int64)

    split = tl.arange(0, SPLITS)
    column = tl.arange(0, HEAD_DIM)
    there = split < splits
    # [SPLITS]
    parts = tl.load(lse_parts + split * rows + lse_place, mask=there, other=NOTHING)
    top = tl.max(parts, axis=0)
    base = tl.where(top == NOTHING, 0.0, top)
    weights = tl.exp(parts - base)
    total = tl.sum(weights, axis=0)
    safe = tl.where(total == 0.0, 1.0, total)
    z_rows = z_parts + (split[:, None] * rows + place) * HEAD_DIM + column  # [SPLITS, HEAD_DIM]
    written = there & (parts != NOTHING)  # a split without keys stores no z
    mixed = tl.sum(tl.load(z_rows, mask=written[:, None], other=0.0) * weights[:, None], axis=0)
    tl.store(z + place * HEAD_DIM + column, mixed / safe)
    tl.store(lse + lse_place, top + tl.log(safe))


def launch_merge(
    parts: tuple[Tensor, Tensor], z: Tensor, lse: Tensor, sizes: tuple[int, int, int], most: int
) -> Launch:
    """The launch of the merge: one program per row of z. All tensors are contiguous.

    Args:
        parts: z and lse of every split, float32 [split ...].
        sizes: heads, seq and head_dim.
        most: a power of two, at least the number of splits.
    """
    (z_parts, lse_parts), (heads, seq, head_dim) = parts, sizes
    # fmt: off
    return Launch(
        merge_kernel,
        (lse.numel(),),
        {
            "z_parts": z_parts, "lse_parts": lse_parts, "z": z, "lse": lse,
            "heads": heads, "seq": seq, "splits": len(lse_parts),
        },
        {"HEAD_DIM": head_dim, "SPLITS": most},
        num_warps=4,
    )
    # fmt: on


def make_launches(
    q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, z: Tensor, lse: Tensor,
    window: int | None, padding: Tensor | None, later: int = 0,
) -> tuple[Launch, ...]:  # fmt: skip
    """The launches for a few queries.

    z [batch seq head head_dim] and lse [batch head seq] are contiguous.
    """
    batch, heads, seq, head_dim = q.shape
    kv_heads, keys = k.shape[1:3]
    arguments, constants = make_inputs(q, k, v, sinks, window, padding, later)
    span = keys  # how many slots are visible to any query; they are the last of the keys
    if window is not None:
        span = max(0, min(keys, seq + window - 1 - later))
    split_keys = max(MIN_SPLIT, triton.next_power_of_2(triton.cdiv(span, MAX_SPLITS)))
    splits = max(1, triton.cdiv(span, split_keys))
    z_parts, lse_parts = z, lse
    if splits > 1:
        z_parts = torch.empty((splits, *z.shape), dtype=torch.float32, device=z.device)
        lse_parts = torch.empty((splits, *lse.shape), dtype=torch.float32, device=z.device)
    of_splits = Launch(
        split_kernel,
        (batch * kv_heads, splits),
        arguments
        | {"z": z_parts, "lse": lse_parts, "begin_slot": keys - span, "split_keys": split_keys},
        constants
        | {"ROWS": max(16, triton.next_power_of_2(heads // kv_heads * seq)), "KEYS": KEYS}
        | {"lengths": None},
        num_warps=4,
        num_stages=4,  # three tiles of 8 KB are loading while one is used
    )
    if splits == 1:
        return (of_splits,)
    sizes = heads, seq, head_dim
    return of_splits, launch_merge((z_parts, lse_parts), z, lse, sizes, MAX_SPLITS)

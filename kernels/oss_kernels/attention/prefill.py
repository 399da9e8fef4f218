"""Attention of many queries in Triton: z = softmax(q·k / sqrt(head_dim), sink) v.

One program computes a tile of queries of one head:

               key slots ->
    queries    k k k k k k . . . . .     . not computed: keys after every query of the tile
    0  tile 0  # # # # # #                 and, with a window, before the windows of all of them
    1  tile 1  # # # # # # # #
    2  tile 2  # # # # # # # # # #       # one program processes its row of tiles, left to right

A tile of q stays in registers while tiles of k and v are read from memory, and `online` updates the
softmax. A program with 128 queries does 128 FLOP for every byte of k and v that it loads, so memory
is not the limit. Heads of a group run next to each other (axis 0 of the grid varies fastest), so
they find each other's k and v in the cache.
"""

import triton
import triton.language as tl
from torch import Tensor

from oss_kernels.attention.layout import make_inputs
from oss_kernels.attention.online import LOG2E, begin_softmax, finish_softmax, update_softmax
from oss_kernels.launch import Launch


@triton.jit(do_not_specialize=("seq", "keys", "before", "window"))
def prefill_kernel(
    q, k, v, sinks, padding, starts, z, lse,
    q_batch, q_head, q_seq, k_batch, k_head, k_key, v_batch, v_head, v_key,  # strides
    heads, seq, keys, before, window, scale,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, DOT_DTYPE: tl.constexpr,
):  # fmt: skip
    # Program ids in 64 bits: offsets may exceed 2^31 elements.
    batch = (tl.program_id(0) // heads).to(tl.int64)
    head = (tl.program_id(0) % heads).to(tl.int64)
    kv_head = head // GROUP
    tile = tl.num_programs(1) - 1 - tl.program_id(1)  # the last tiles have most work: start first

    query = tile * QUERIES + tl.arange(0, QUERIES)
    column = tl.arange(0, HEAD_DIM)
    real = (query < seq)[:, None]
    q_rows = q + batch * q_batch + head * q_head + query.to(tl.int64)[:, None] * q_seq
    q_tile = tl.load(q_rows + column, mask=real, other=0.0).to(DOT_DTYPE)  # [QUERIES, HEAD_DIM]

    # Each query sees slots first to last. The tile as a whole sees slots lower to upper - 1.
    padded = 0
    if padding is not None:
        padded = tl.load(padding + batch).to(tl.int32)
    first = tl.maximum(before + query - window + 1, padded)
    lower = tl.maximum(before + tile * QUERIES - window + 1, padded)
    if starts is not None:
        own = tl.load(starts + batch * seq + query, mask=query < seq, other=keys)
        first, lower = tl.maximum(first, own), tl.maximum(lower, tl.min(own, axis=0))
    upper = tl.minimum(before + (tile + 1) * QUERIES, keys)
    last = tl.minimum(before + query, upper - 1)  # the zeros loaded after the span are not keys

    sink = tl.load(sinks + head).to(tl.float32) * LOG2E
    top, total, mixed = begin_softmax(tl.zeros([QUERIES], tl.float32) + sink, HEAD_DIM)
    row = tl.arange(0, KEYS)
    k_rows = k + batch * k_batch + kv_head * k_head + lower.to(tl.int64) * k_key
    v_rows = v + batch * v_batch + kv_head * v_head + lower.to(tl.int64) * v_key
    k_rows += row[:, None] * k_key + column
    v_rows += row[:, None] * v_key + column
    for start in range(lower, upper, KEYS):
        slot = start + row
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
    z_rows = z + ((batch * seq + query[:, None]) * heads + head) * HEAD_DIM
    tl.store(z_rows + column, z_tile, mask=real)  # rounds to z's type
    tl.store(lse + (batch * heads + head) * seq + query, lse_tile, mask=query < seq)


def launch(
    q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, z: Tensor, lse: Tensor,
    window: int | None, padding: Tensor | None, later: int = 0, starts: Tensor | None = None,
) -> Launch:  # fmt: skip
    """The launch for any number of queries.

    z [batch seq head head_dim], lse [batch head seq] and starts [batch seq] (int32) are contiguous.
    """
    batch, heads, seq, _ = q.shape
    queries = min(128, max(16, triton.next_power_of_2(seq)))
    arguments, constants = make_inputs(q, k, v, sinks, window, padding, later)
    if starts is None:
        constants["starts"] = None  # compiles the kernel without starts
    else:
        arguments["starts"] = starts
    return Launch(
        prefill_kernel,
        (batch * heads, triton.cdiv(seq, queries)),
        arguments | {"z": z, "lse": lse},
        constants | {"QUERIES": queries, "KEYS": 32},
        num_warps=max(4, queries // 16),
        num_stages=2,
    )

"""dq in Triton: one program computes it for a tile of queries of one head.

               keys ->
    queries    k k k k k k k k
    tile 0     # # .                   # one program processes its row of tiles, left to right:
    tile 1     # # # # .                 scores, shares, ds, and dq += ds k
    tile 2     . . # # # # .           . tiles that no query sees are not computed

q and dz of the tile stay in registers while tiles of k and v are read.
"""

import triton
import triton.language as tl

from oss_kernels.attention.online import LOG2E


@triton.jit(do_not_specialize=("seq",))
def query_gradient_kernel(
    q, k, v, dz, lse, mean, first, dq,
    heads, seq, scale,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, STAGES: tl.constexpr, DOT_DTYPE: tl.constexpr,
):  # fmt: skip
    # In 64 bits: offsets may exceed 2^31 elements. Within a head they do not.
    row = tl.program_id(0).to(tl.int64)  # batch * heads + head
    kv_at = row // GROUP * seq * HEAD_DIM
    tile = tl.num_programs(1) - 1 - tl.program_id(1)  # the last tiles have most work: start first
    query = tile * QUERIES + tl.arange(0, QUERIES)
    column = tl.arange(0, HEAD_DIM)
    real = query < seq
    place = query[:, None] * HEAD_DIM + column
    at = row * seq * HEAD_DIM
    q_tile = tl.load(q + at + place, mask=real[:, None], other=0.0).to(DOT_DTYPE)
    dz_tile = tl.load(dz + at + place, mask=real[:, None], other=0.0).to(DOT_DTYPE)
    base = tl.load(lse + row * seq + query, mask=real, other=0.0) * LOG2E
    means = tl.load(mean + row * seq + query, mask=real, other=0.0)
    firsts = tl.load(first + row // heads * seq + query, mask=real, other=seq)

    sums = tl.zeros([QUERIES, HEAD_DIM], tl.float32)
    upper = tl.minimum((tile + 1) * QUERIES, seq)
    lower = tl.min(firsts, axis=0)
    for start in tl.range(lower, upper, KEYS, num_stages=STAGES):  # pyright: ignore[reportGeneralTypeIssues]
        key = start + tl.arange(0, KEYS)
        held = (key < upper)[:, None]
        near = key[:, None] * HEAD_DIM + column
        k_tile = tl.load(k + kv_at + near, mask=held, other=0.0).to(DOT_DTYPE)
        v_tile = tl.load(v + kv_at + near, mask=held, other=0.0).to(DOT_DTYPE)
        scores = tl.dot(q_tile, tl.trans(k_tile), input_precision="ieee")
        visible = (key[None, :] >= firsts[:, None]) & (key[None, :] <= query[:, None])
        shares = tl.where(visible, tl.exp2(scores * (scale * LOG2E) - base[:, None]), 0.0)
        dscores = shares * (
            tl.dot(dz_tile, tl.trans(v_tile), input_precision="ieee") - means[:, None]
        )
        sums = tl.dot(dscores.to(DOT_DTYPE), k_tile, sums, input_precision="ieee")
    tl.store(dq + at + place, sums * scale, mask=real[:, None])

"""dk and dv in Triton: one program computes them for a tile of keys of one kv head.

               keys ->
    queries    tile 0   tile 1   tile 2
    |          #                           # one program processes its column of tiles, top to
    v          #        #                    bottom, for every query head of the kv head:
               .        #        #           scores, shares, ds, dv += sharesᵀ dz, dk += dsᵀ q
               .        .        #         . tiles that no query sees are not computed

Everything is transposed, keys by queries, because that is how both products read shares and ds.
The sum over the query heads stays in registers, so no program adds to another's result: no atomics.
"""

import triton
import triton.language as tl

from oss_kernels.attention.online import LOG2E


@triton.jit(do_not_specialize=("seq",))
def key_gradient_kernel(
    q, k, v, dz, lse, mean, first, last, dk, dv,
    kv_heads, seq, scale,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, STAGES: tl.constexpr, DOT_DTYPE: tl.constexpr,
):  # fmt: skip
    # In 64 bits: offsets may exceed 2^31 elements. Within a head they do not.
    kv_row = tl.program_id(0).to(tl.int64)  # batch * kv_heads + kv_head
    batch_at = kv_row // kv_heads * seq
    tile = tl.program_id(1)  # the first tiles have most work
    key = tile * KEYS + tl.arange(0, KEYS)
    column = tl.arange(0, HEAD_DIM)
    held = key < seq
    near = key[:, None] * HEAD_DIM + column
    kv_at = kv_row * seq * HEAD_DIM
    k_tile = tl.load(k + kv_at + near, mask=held[:, None], other=0.0).to(DOT_DTYPE)
    v_tile = tl.load(v + kv_at + near, mask=held[:, None], other=0.0).to(DOT_DTYPE)
    upper = tl.max(tl.load(last + batch_at + key, mask=held, other=-1) + 1, axis=0)

    dk_sums = tl.zeros([KEYS, HEAD_DIM], tl.float32)
    dv_sums = tl.zeros([KEYS, HEAD_DIM], tl.float32)
    for member in range(GROUP):
        row_at = (kv_row * GROUP + member) * seq
        # A query sees no later key.
        for start in tl.range(tile * KEYS, upper, QUERIES, num_stages=STAGES):  # pyright: ignore[reportGeneralTypeIssues]
            query = start + tl.arange(0, QUERIES)
            real = query < upper
            place = query[:, None] * HEAD_DIM + column
            q_rows, dz_rows = q + row_at * HEAD_DIM + place, dz + row_at * HEAD_DIM + place
            q_tile = tl.load(q_rows, mask=real[:, None], other=0.0).to(DOT_DTYPE)
            dz_tile = tl.load(dz_rows, mask=real[:, None], other=0.0).to(DOT_DTYPE)
            base = tl.load(lse + row_at + query, mask=real, other=0.0) * LOG2E
            means = tl.load(mean + row_at + query, mask=real, other=0.0)
            firsts = tl.load(first + batch_at + query, mask=real, other=seq)
            scores = tl.dot(k_tile, tl.trans(q_tile), input_precision="ieee")  # [KEYS, QUERIES]
            visible = (key[:, None] >= firsts[None, :]) & (key[:, None] <= query[None, :])
            shares = tl.where(visible, tl.exp2(scores * (scale * LOG2E) - base[None, :]), 0.0)
            dv_sums = tl.dot(shares.to(DOT_DTYPE), dz_tile, dv_sums, input_precision="ieee")
            dscores = shares * (
                tl.dot(v_tile, tl.trans(dz_tile), input_precision="ieee") - means[None, :]
            )
            dk_sums = tl.dot(dscores.to(DOT_DTYPE), q_tile, dk_sums, input_precision="ieee")
    tl.store(dk + kv_at + near, dk_sums * scale, mask=held[:, None])
    tl.store(dv + kv_at + near, dv_sums, mask=held[:, None])

"""RMSNorm, q/k/v projection, RoPE and cache append of a decode step in one Triton kernel.

    head h of q, k or v: rows            one program computes a few rows i of the first half of a
      i, i+1            first half  \\    head and their partners in the second half, because RoPE
      ...                            >   rotates each pair:
      i+half, i+half+1  second half /      first  = a cos - b sin,   second = b cos + a sin

The norm needs no separate kernel: x is 5.8 KB and the weights are 29.5 MB, so every program can
read x again. With r = 1 / sqrt(mean(x^2) + eps), a row's product is r sum(w x scale). The sum does
not need r, so it and the sum of squares are computed together.

Everything is float32 and rounded once, when q, k or v is stored. The model rounds the normalized x,
the projection, both products of the rotation and their sum to x's dtype, so this kernel is more
precise. Weights stay in registers while the rows of the batch are processed, as in `linear`. Left
out: batches of more than MAX_TOKENS rows, which the reference computes.
"""

import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from oss_kernels.launch import Launch
from oss_kernels.linear.kernel import MAX_TOKENS, choose_tile
from oss_kernels.qkv_rope import reference
from oss_kernels.qkv_rope.checks import check_qkv_rope


@triton.jit
def qkv_rope_kernel(
    x, norm_scale, weight, bias, cos, sin, at, q, keys, values,
    batch, hidden, heads, kv_heads, half, capacity, eps,
    at_stride, key_row, key_head, key_slot, value_row, value_head, value_slot,
    PAIRS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1)  # the heads of q, then those of k, then those of v
    first = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)  # within the head
    second = first + half
    column = tl.arange(0, COLUMNS)
    exists, within = first < half, column < hidden
    mask = exists[:, None] & within[None, :]
    row = head.to(tl.int64) * (2 * half)  # 64 bits: row * hidden
    place_a = (row + first)[:, None] * hidden + column[None, :]  # [PAIRS, COLUMNS]
    place_b = (row + second)[:, None] * hidden + column[None, :]
    weights_a = tl.load(weight + place_a, mask=mask, other=0.0).to(tl.float32)
    weights_b = tl.load(weight + place_b, mask=mask, other=0.0).to(tl.float32)
    bias_a = tl.load(bias + row + first, mask=exists, other=0.0).to(tl.float32)
    bias_b = tl.load(bias + row + second, mask=exists, other=0.0).to(tl.float32)
    scale = tl.load(norm_scale + column, mask=within, other=0.0).to(tl.float32)
    for token in range(batch):
        wide = tl.load(x + token * hidden + column, mask=within, other=0.0).to(tl.float32)
        inverse = tl.rsqrt(tl.sum(wide * wide, axis=0) / hidden + eps)
        scaled = (wide * scale)[None, :]
        a = tl.sum(weights_a * scaled, axis=1) * inverse + bias_a
        b = tl.sum(weights_b * scaled, axis=1) * inverse + bias_b
        if head < heads + kv_heads:
            table = token * 2 * half
            cos_a = tl.load(cos + table + first, mask=exists, other=0.0).to(tl.float32)
            cos_b = tl.load(cos + table + second, mask=exists, other=0.0).to(tl.float32)
            sin_a = tl.load(sin + table + first, mask=exists, other=0.0).to(tl.float32)
            sin_b = tl.load(sin + table + second, mask=exists, other=0.0).to(tl.float32)
            a, b = a * cos_a + b * sin_a, b * cos_b + a * sin_b  # sin_a is -sin
        wide_token = tl.cast(token, tl.int64)
        if head < heads:
            out = q + (wide_token * heads + head) * (2 * half)
            tl.store(out + first, a, mask=exists)
            tl.store(out + second, b, mask=exists)
        else:
            slot = tl.load(at + token * at_stride).to(tl.int64)
            if (slot >= 0) & (slot < capacity):  # nothing is written outside the cache
                kv_head = head - heads
                if kv_head < kv_heads:
                    out = keys + wide_token * key_row + kv_head * key_head + slot * key_slot
                else:
                    kv_head -= kv_heads
                    out = values + wide_token * value_row + kv_head * value_head + slot * value_slot
                tl.store(out + first, a, mask=exists)
                tl.store(out + second, b, mask=exists)


def launch(
    x: Tensor,
    norm_scale: Tensor,
    eps: float,
    weight: Tensor,
    bias: Tensor,
    cos: Tensor,
    sin: Tensor,
    keys: Tensor,
    values: Tensor,
    at: Tensor,
    q: Tensor,
) -> Launch:
    """The launch: one program per few pairs of rows.

    All tensors are contiguous, with two exceptions: keys and values need only a contiguous last
    axis, and `at` is [batch] with any stride, including 0.
    """
    if keys.stride(3) != 1 or values.stride(3) != 1:
        raise ValueError("the last axis of keys and values must be contiguous in memory")
    (batch, hidden), (_, heads, head_dim) = x.shape, q.shape
    half = head_dim // 2
    rows, columns, warps = choose_tile(hidden)
    pairs = min(max(1, rows // 2), triton.next_power_of_2(half))
    sizes = {"batch": batch, "hidden": hidden, "heads": heads, "kv_heads": keys.shape[1]}
    names = ("key_row", "key_head", "key_slot", "value_row", "value_head", "value_slot")
    strides = dict(zip(names, keys.stride()[:3] + values.stride()[:3], strict=True))
    return Launch(
        qkv_rope_kernel,
        (triton.cdiv(half, pairs), heads + 2 * keys.shape[1]),
        {"x": x, "norm_scale": norm_scale, "weight": weight, "bias": bias, "cos": cos, "sin": sin}
        | {"at": at, "q": q, "keys": keys, "values": values}
        | sizes
        | {"half": half, "capacity": keys.shape[2], "eps": eps, "at_stride": at.stride(0)}
        | strides,
        {"PAIRS": pairs, "COLUMNS": columns},
        num_warps=warps,
    )


def qkv_rope(
    x: Float[Tensor, "batch hidden"],
    norm_scale: Float[Tensor, "hidden"],
    eps: float,
    weight: Float[Tensor, "rows hidden"],
    bias: Float[Tensor, "rows"],
    cos: Float[Tensor, "batch head_dim"],
    sin: Float[Tensor, "batch head_dim"],
    keys: Float[Tensor, "batch kv_head capacity head_dim"],
    values: Float[Tensor, "batch kv_head capacity head_dim"],
    at: Int[Tensor, "*batch"],
) -> Float[Tensor, "batch head head_dim"]:
    """The operation of `reference.qkv_rope`.

    Up to MAX_TOKENS rows are computed in float32 and rounded once. More rows are passed to the
    reference.
    """
    check_qkv_rope(x, norm_scale, weight, bias, cos, sin, keys, values, at)
    if len(x) > MAX_TOKENS:
        return reference.qkv_rope(x, norm_scale, eps, weight, bias, cos, sin, keys, values, at)
    _, kv_heads, _, head_dim = keys.shape
    q = x.new_empty(len(x), len(weight) // head_dim - 2 * kv_heads, head_dim)
    x, norm_scale = x.contiguous(), norm_scale.contiguous()
    weight, bias = weight.contiguous(), bias.contiguous()
    cos, sin, at = cos.contiguous(), sin.contiguous(), at.expand(len(x))
    launch(x, norm_scale, eps, weight, bias, cos, sin, keys, values, at, q)()
    return q

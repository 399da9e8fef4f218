"""gpt-oss's activation inside Triton kernels."""

import triton
import triton.language as tl


@triton.jit
def clamped_swiglu(gate, up, alpha, limit):
    """`reference.clamped_swiglu` of float32. Unlike Triton's default, a NaN is not clamped away."""
    keep: tl.constexpr = tl.PropagateNan.ALL
    gate = tl.minimum(gate, limit, propagate_nan=keep)
    up = tl.maximum(tl.minimum(up, limit, propagate_nan=keep), -limit, propagate_nan=keep)
    return gate * tl.sigmoid(alpha * gate) * (up + 1.0)

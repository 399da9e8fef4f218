"""gpt-oss's activation function for use inside Triton kernels."""

import triton
import triton.language as tl


@triton.jit
def clamped_swiglu(gate, up, alpha, limit):
    """`reference.clamped_swiglu` in float32. NaN stays NaN, unlike with Triton's default clamp."""
    keep: tl.constexpr = tl.PropagateNan.ALL
    gate = tl.minimum(gate, limit, propagate_nan=keep)
    up = tl.maximum(tl.minimum(up, limit, propagate_nan=keep), -limit, propagate_nan=keep)
    return gate * tl.sigmoid(alpha * gate) * (up + 1.0)

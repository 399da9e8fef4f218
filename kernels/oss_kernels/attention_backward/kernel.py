"""Gradients of attention in Triton: one kernel for dq, one for dk and dv.

Both compute the scores again from q, k and lse, which costs one more product than a single kernel
would. In return, each result is written by one program, in a fixed order of additions.
"""

import torch
import triton
from jaxtyping import Float, Int
from torch import Tensor

from oss_kernels.attention_backward.checks import check_attention_backward
from oss_kernels.attention_backward.key_gradients import key_gradient_kernel
from oss_kernels.attention_backward.query_gradients import query_gradient_kernel
from oss_kernels.attention_backward.reference import Gradients, multiply_rows, sum_sink_gradient
from oss_kernels.attention_backward.visible import find_first_keys, find_last_queries
from oss_kernels.launch import Launch, dot_dtype


def make_launches(
    q: Tensor, k: Tensor, v: Tensor, dz: Tensor, lse: Tensor, mean: Tensor,
    first: Tensor, last: Tensor, dq: Tensor, dk: Tensor, dv: Tensor,
) -> tuple[Launch, Launch]:  # fmt: skip
    """The launches for dq, and for dk and dv. All tensors are contiguous.

    lse and `mean` (D of the reference) are float32 [batch head seq]; first and last (`visible.py`)
    are int32 [batch seq].
    """
    (batch, heads, seq, head_dim), kv_heads = q.shape, k.shape[1]
    side = min(64, max(16, triton.next_power_of_2(seq)))
    shared = {"q": q, "k": k, "v": v, "dz": dz, "lse": lse, "mean": mean, "first": first}
    numbers = {"seq": seq, "scale": head_dim**-0.5}
    constants = {
        "GROUP": heads // kv_heads,
        "HEAD_DIM": head_dim,
        "STAGES": 2,
        "DOT_DTYPE": dot_dtype(q.dtype),
    }
    tiles = triton.cdiv(seq, side)
    return (
        Launch(
            query_gradient_kernel,
            (batch * heads, tiles),
            shared | numbers | {"heads": heads, "dq": dq},
            constants | {"QUERIES": side, "KEYS": 32},
            num_warps=4 if q.dtype == torch.bfloat16 else 8,
        ),
        Launch(
            key_gradient_kernel,
            (batch * kv_heads, tiles),
            shared | numbers | {"kv_heads": kv_heads, "last": last, "dk": dk, "dv": dv},
            constants | {"QUERIES": 16, "KEYS": side},
            num_warps=8,
        ),
    )


def attention_backward(
    q: Float[Tensor, "batch head seq head_dim"],
    k: Float[Tensor, "batch kv_head seq head_dim"],
    v: Float[Tensor, "batch kv_head seq head_dim"],
    sinks: Float[Tensor, "head"],
    z: Float[Tensor, "batch head seq head_dim"],
    lse: Float[Tensor, "batch head seq"],
    dz: Float[Tensor, "batch head seq head_dim"],
    *,
    window: int | None = None,
    starts: Int[Tensor, "#batch seq"] | None = None,
) -> Gradients:
    """The operation of `reference.attention_backward`, for float32 and bfloat16."""
    check_attention_backward(q, k, v, sinks, z, lse, dz, starts)
    mean = multiply_rows(dz, z)
    first = find_first_keys(q.shape[0], q.shape[2], window, starts, q.device)
    q, k, v, dz, lse = (each.contiguous() for each in (q, k, v, dz, lse))
    dq, dk, dv = (torch.empty_like(each) for each in (q, k, v))
    for launch in make_launches(
        q, k, v, dz, lse, mean, first, find_last_queries(first), dq, dk, dv
    ):
        launch()
    return dq, dk, dv, sum_sink_gradient(sinks, lse, mean)

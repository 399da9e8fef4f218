"""Arguments that both kernels share: strides of q, k and v, sizes, and the type to multiply in."""

from torch import Tensor

from oss_kernels.attention.online import LOG2E
from oss_kernels.launch import dot_dtype

STRIDES = (
    "q_batch", "q_head", "q_seq", "k_batch", "k_head", "k_key", "v_batch", "v_head", "v_key",
)  # fmt: skip


def make_inputs(
    q: Tensor, k: Tensor, v: Tensor, sinks: Tensor,
    window: int | None, padding: Tensor | None, later: int,
) -> tuple[dict[str, Tensor | int | float], dict[str, object]]:  # fmt: skip
    """(arguments, constants). The last axis must have a stride of 1; other strides are free.

    `before` is the key slot of query 0, negative if the span is short. If k and v have a batch of
    1, all rows of q read that one row.
    """
    batch, heads, seq, head_dim = q.shape
    kv_heads, keys = k.shape[1:3]
    strides = [*q.stride()[:3], *k.stride()[:3], *v.stride()[:3]]
    if k.shape[0] != batch:
        strides[3] = strides[6] = 0
    arguments: dict[str, Tensor | int | float] = {
        "q": q, "k": k, "v": v, "sinks": sinks,
        **dict(zip(STRIDES, strides, strict=True)),
        "heads": heads, "seq": seq, "keys": keys,
        "before": keys - seq + later,
        "window": keys + later if window is None else window,  # None: wider than any distance
        "scale": head_dim**-0.5 * LOG2E.value,
    }  # fmt: skip
    constants: dict[str, object] = {
        "GROUP": heads // kv_heads,
        "HEAD_DIM": head_dim,
        "DOT_DTYPE": dot_dtype(q.dtype),
    }
    if padding is None:
        constants["padding"] = None  # compiles the kernel without padding
    else:
        arguments["padding"] = padding
    return arguments, constants

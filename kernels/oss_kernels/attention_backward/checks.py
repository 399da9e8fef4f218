"""Checks of the arguments of attention's gradients."""

from torch import Tensor

from oss_kernels.attention.checks import check_attention
from oss_kernels.checks import check_dtype, check_shape


def check_attention_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sinks: Tensor,
    z: Tensor,
    lse: Tensor,
    dz: Tensor,
    starts: Tensor | None,
) -> None:
    """Raises ValueError if shapes or dtypes do not match."""
    check_attention(q, k, v, sinks, None, starts)
    batch, _, seq, head_dim = q.shape
    check_shape("k", k, batch, k.shape[1], seq, head_dim)
    check_shape("z", z, *q.shape)
    check_shape("dz", dz, *q.shape)
    check_shape("lse", lse, *q.shape[:3])
    check_dtype("dz", dz, q.dtype)

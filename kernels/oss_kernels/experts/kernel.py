"""The experts in Triton: matrix-vector products for a few tokens, tiles for many."""

from jaxtyping import Float, Int
from torch import Tensor

from oss_kernels.checks import FLOATS, check_dtype
from oss_kernels.experts import decode, prefill
from oss_kernels.experts.checks import check_experts
from oss_kernels.experts.weights import ExpertWeights

FEW = 8
"""With at most this many tokens, few share an expert, so grouping them would save no reading."""


def expert_mlp(
    x: Float[Tensor, "token hidden"],
    ids: Int[Tensor, "token slot"],
    weights: Float[Tensor, "token slot"],
    experts: ExpertWeights,
    *,
    alpha: float,
    limit: float,
) -> Float[Tensor, "token hidden"]:
    """The operation of `reference.expert_mlp`, for float32 and bfloat16 x.

    ids must be valid. They are on the device and are not checked, since that would wait for it.
    """
    check_experts(x, ids, weights, experts)
    check_dtype("x", x, *FLOATS)
    x, ids, weights = x.contiguous(), ids.contiguous(), weights.contiguous()
    experts = experts.contiguous()
    run = decode.expert_mlp if len(x) <= FEW else prefill.expert_mlp
    return run(x, ids, weights, experts, alpha=alpha, limit=limit)

"""The experts in Triton: by matrix times vector for few tokens, by tiles for many."""

from jaxtyping import Float, Int
from torch import Tensor

from oss_kernels.checks import FLOATS, check_dtype
from oss_kernels.experts import decode, prefill
from oss_kernels.experts.checks import check
from oss_kernels.experts.weights import ExpertWeights

FEW = 8
"""Tokens up to which they hardly share experts, so that grouping them would save no reading."""


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

    ids are on the device and not looked at, which would mean waiting for it: they must be experts'.
    """
    check(x, ids, weights, experts)
    check_dtype("x", x, *FLOATS)
    x, ids, weights = x.contiguous(), ids.contiguous(), weights.contiguous()
    experts = experts.contiguous()
    run = decode.expert_mlp if len(x) <= FEW else prefill.expert_mlp
    return run(x, ids, weights, experts, alpha=alpha, limit=limit)

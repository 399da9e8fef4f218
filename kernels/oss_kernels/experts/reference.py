"""A token's chosen experts in plain torch: each an MLP, weighted and summed."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from oss_kernels.experts.weights import ExpertWeights
from oss_kernels.mxfp4.reference import dequantize


def clamped_swiglu(
    gate_up: Float[Tensor, "row two_width"], alpha: float, limit: float
) -> Float[Tensor, "row width"]:
    """gate * sigmoid(alpha * gate) * (up + 1).

    Even columns are gate, clamped from above only; odd columns are up, clamped on both sides.
    Source: openai/gpt-oss, torch/model.py.
    """
    gate = gate_up[:, ::2].clamp(max=limit)
    up = gate_up[:, 1::2].clamp(-limit, limit)
    return gate * torch.sigmoid(alpha * gate) * (up + 1)


def expert_mlp(
    x: Float[Tensor, "token hidden"],
    ids: Int[Tensor, "token slot"],
    weights: Float[Tensor, "token slot"],
    experts: ExpertWeights,
    *,
    alpha: float,
    limit: float,
) -> Float[Tensor, "token hidden"]:
    """The sum over a token's slots of weight * expert(x), without the residual.

    x is already normalized. Computed in float32 (float64 for float64 x), then rounded to x's dtype.
    A token must not have the same expert twice. Experts that no token uses are not read.
    """
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    out = torch.zeros_like(x, dtype=wide)
    for expert in ids.unique().tolist():
        gate_up = dequantize(experts.gate_up_blocks[expert], experts.gate_up_scales[expert], wide)
        down = dequantize(experts.down_blocks[expert], experts.down_scales[expert], wide)
        token, slot = (ids == expert).nonzero(as_tuple=True)
        both = x[token].to(wide) @ gate_up.T + experts.gate_up_bias[expert].to(wide)
        activation = clamped_swiglu(both, alpha, limit)
        own = activation @ down.T + experts.down_bias[expert].to(wide)
        out[token] += own * weights[token, slot, None].to(wide)
    return out.to(x.dtype)

"""Checks of the experts' arguments. `ExpertWeights` checks its own tensors."""

from torch import Tensor

from oss_kernels.checks import INTEGERS, check_axes, check_dtype, check_no_gradient, check_shape
from oss_kernels.experts.weights import ExpertWeights


def check_experts(x: Tensor, ids: Tensor, weights: Tensor, experts: ExpertWeights) -> None:
    """Raises ValueError if shapes or dtypes do not match, or if a gradient is needed."""
    tokens, slots = check_axes("ids", ids, "token slot")
    check_shape("x", x, tokens, experts.hidden)
    check_shape("weights", weights, tokens, slots)
    check_dtype("ids", ids, *INTEGERS)
    check_no_gradient(x, weights, experts.gate_up_bias, experts.down_bias)


def check_range(lowest: int, highest: int, experts: ExpertWeights) -> None:
    """Raises ValueError if an expert id is out of range. CPU only: a GPU would have to wait."""
    if lowest < 0 or highest >= experts.experts:
        raise ValueError(
            f"expert ids are from {lowest} to {highest}; they must be from 0 to "
            f"{experts.experts - 1}"
        )

"""What the experts' kernels refuse; `ExpertWeights` checks itself."""

from torch import Tensor

from oss_kernels.checks import INTEGERS, check_axes, check_dtype, check_no_gradient, check_shape
from oss_kernels.experts.weights import ExpertWeights


def check(x: Tensor, ids: Tensor, weights: Tensor, experts: ExpertWeights) -> None:
    """Raises ValueError: sizes or types do not fit, or a gradient is wanted."""
    tokens, slots = check_axes("ids", ids, "token slot")
    check_shape("x", x, tokens, experts.hidden)
    check_shape("weights", weights, tokens, slots)
    check_dtype("ids", ids, *INTEGERS)
    check_no_gradient(x, weights, experts.gate_up_bias, experts.down_bias)


def check_range(lowest: int, highest: int, experts: ExpertWeights) -> None:
    """Raises ValueError: an id is no expert's. On a device looking would mean waiting for it."""
    if lowest < 0 or highest >= experts.experts:
        raise ValueError(
            f"ids are from {lowest} to {highest}; they must be from 0 to {experts.experts - 1}"
        )

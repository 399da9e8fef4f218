"""The experts' activation with its gradient."""

from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.autograd import Function

from oss_kernels.autograd.once import refuse_second_derivative
from oss_kernels.backends import Backend
from oss_kernels.experts import reference


class ClampedSwiGLU(Function):
    """Saves gate_up only. torch would also save the clamped values, the sigmoid and products."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, alpha: float, limit: float, backend: Backend) -> Tensor:
        ctx.save_for_backward(gate_up)
        ctx.constants, ctx.backend = {"alpha": alpha, "limit": limit}, backend
        wide = gate_up if gate_up.dtype.itemsize > 4 else gate_up.float()
        return reference.clamped_swiglu(wide, alpha, limit).to(gate_up.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        dgate_up = ctx.backend.swiglu_backward(*ctx.saved_tensors, *gradients, **ctx.constants)
        return dgate_up, None, None, None


def clamped_swiglu(
    gate_up: Float[Tensor, "row two_width"], *, alpha: float, limit: float, backend: Backend
) -> Float[Tensor, "row width"]:
    """`experts.reference.clamped_swiglu` in float32, rounded to gate_up's dtype, with its gradient.

    The gradient is zero where a clamp cuts. Has no second derivative: a backward with
    create_graph=True raises ValueError.
    """
    act = ClampedSwiGLU.apply(gate_up, alpha, limit, backend)
    assert isinstance(act, Tensor)
    return act

"""The gradient of the experts' activation (`experts.reference.clamped_swiglu`) in plain torch.

With g = min(gate, limit), u = clamp(up, -limit, limit) and s = sigmoid(alpha g), the activation is
a = g s (u + 1). Then

    da/dgate = s (1 + alpha g (1 - s)) (u + 1), or 0 above the limit
    da/dup   = g s, or 0 outside the limits
"""

import torch
from jaxtyping import Float
from torch import Tensor


def swiglu_backward(
    gate_up: Float[Tensor, "row two_width"],
    dact: Float[Tensor, "row width"],
    *,
    alpha: float,
    limit: float,
) -> Float[Tensor, "row two_width"]:
    """The gradient by gate_up, in its order (even columns gate, odd columns up) and its dtype.

    A value exactly at its limit still has a gradient, as in torch's clamp. Computed in float32
    (float64 for float64 gate_up).
    """
    wide = torch.float64 if gate_up.dtype == torch.float64 else torch.float32
    gate, up, dact = gate_up[:, ::2].to(wide), gate_up[:, 1::2].to(wide), dact.to(wide)
    g, u = gate.clamp(max=limit), up.clamp(-limit, limit)
    s = torch.sigmoid(alpha * g)
    dgate = torch.where(gate <= limit, dact * s * (1 + alpha * g * (1 - s)) * (u + 1), 0)
    dup = torch.where(up.abs() <= limit, dact * g * s, 0)
    return torch.stack((dgate, dup), dim=-1).flatten(1).to(gate_up.dtype)

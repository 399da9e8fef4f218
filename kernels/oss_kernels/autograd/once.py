"""These operations have first derivatives only."""

import torch


def refuse_second_derivative() -> None:
    """Call this first in a backward. Raises ValueError if its result needs a gradient too."""
    if torch.is_grad_enabled():
        raise ValueError(
            "kernels compute no second derivatives; call backward without create_graph=True, "
            "or differentiate the reference model"
        )

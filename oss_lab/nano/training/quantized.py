"""Trainable experts that are seen through MXFP4, so that the model learns to live with rounding.

From `round()` on, the forward uses the rounded matrices and the gradient passes through as if
nothing had been rounded (the straight-through estimator, arXiv 1308.3432).
"""

from collections.abc import Iterator, Sequence

import torch
from oss_kernels import mxfp4
from torch import Tensor

from oss_lab.model.experts import DenseExperts


class RoundedExperts(DenseExperts):
    """DenseExperts plus, after `round()`, the difference that MXFP4 rounding makes to each."""

    def __init__(self, experts: int, rows: int, columns: int) -> None:
        super().__init__(experts, rows, columns)
        self.rounding: tuple[Tensor, ...] | None = None

    @torch.no_grad()
    def round(self) -> None:
        """Take the rounding of the weights as they are now."""
        exact = torch.stack(tuple(self.dense))
        self.rounding = (mxfp4.dequantize(*mxfp4.quantize(exact)) - exact).unbind()

    def matrices(self, experts: Sequence[int], dtype: torch.dtype) -> Iterator[Tensor]:
        for expert in experts:
            exact = self.dense[expert]
            yield (exact if self.rounding is None else exact + self.rounding[expert]).to(dtype)

"""Trainable experts that are rounded to MXFP4, to let the model adapt to the rounding.

After `round()`, the forward pass uses the rounded matrices. The gradient ignores the rounding (the
straight-through estimator, arXiv 1308.3432).
"""

from collections.abc import Iterator, Sequence

import torch
from oss_kernels import mxfp4
from torch import Tensor

from oss_lab.model.experts import DenseExperts


class RoundedExperts(DenseExperts):
    """DenseExperts to which, after `round()`, the rounding error of MXFP4 is added."""

    def __init__(self, experts: int, rows: int, columns: int) -> None:
        super().__init__(experts, rows, columns)
        self.rounding: tuple[Tensor, ...] | None = None

    @torch.no_grad()
    def round(self) -> None:
        """Compute the rounding error of the current weights."""
        exact = torch.stack(tuple(self.dense))
        self.rounding = (mxfp4.dequantize(*mxfp4.quantize(exact)) - exact).unbind()

    def matrices(self, experts: Sequence[int], dtype: torch.dtype) -> Iterator[Tensor]:
        for expert in experts:
            exact = self.dense[expert]
            yield (exact if self.rounding is None else exact + self.rounding[expert]).to(dtype)

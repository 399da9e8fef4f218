"""Where an expert's weight matrix comes from: packed MXFP4 at inference, a parameter in training.

Packed experts stay packed; a matrix is dequantised when first used and kept in an `ExpertCache`
shared by the whole model, which forgets the least recently used ones beyond its byte budget.
"""

import math
from collections import OrderedDict

import torch
from jaxtyping import Float
from oss_kernels import mxfp4
from torch import Tensor, nn


class ExpertCache:
    """Dequantised matrices, at most `budget_bytes` of them (None: no bound)."""

    def __init__(self, budget_bytes: int | None = None) -> None:
        self.budget_bytes = budget_bytes
        self.bytes = 0
        self._matrices: OrderedDict[tuple[int, int, torch.dtype], Tensor] = OrderedDict()

    def get(self, packed: "PackedExperts", expert: int, dtype: torch.dtype) -> Tensor:
        key = (id(packed), expert, dtype)
        if (kept := self._matrices.get(key)) is not None:
            self._matrices.move_to_end(key)
            return kept
        # What is made in inference mode can never be part of a backward, and this is kept.
        with torch.inference_mode(False), torch.no_grad():
            matrix = mxfp4.dequantise(packed.blocks[expert], packed.scales[expert], dtype)
            if dtype == torch.float32:
                # On x86 a few rows go faster through columns laid out one by one.
                matrix = matrix.T.contiguous().T
        self._matrices[key] = matrix
        self.bytes += matrix.nbytes
        while self.budget_bytes is not None and self.bytes > self.budget_bytes:
            _, forgotten = self._matrices.popitem(last=False)
            self.bytes -= forgotten.nbytes
        return matrix


class PackedExperts(nn.Module):
    """One MXFP4 matrix per expert: blocks [expert rows groups 16], scales [expert rows groups]."""

    blocks: Tensor
    scales: Tensor

    def __init__(self, experts: int, rows: int, columns: int) -> None:
        super().__init__()
        groups = columns // mxfp4.BLOCK
        blocks = torch.zeros(experts, rows, groups, mxfp4.BLOCK // 2, dtype=torch.uint8)
        scales = torch.full((experts, rows, groups), mxfp4.SCALE_BIAS, dtype=torch.uint8)
        self.register_buffer("blocks", blocks)
        self.register_buffer("scales", scales)
        self.cache = ExpertCache()

    def matrix(self, expert: int, dtype: torch.dtype) -> Float[Tensor, "rows columns"]:
        return self.cache.get(self, expert, dtype)


class DenseExperts(nn.Module):
    """One trainable matrix per expert."""

    def __init__(self, experts: int, rows: int, columns: int) -> None:
        super().__init__()
        # One parameter each: a slice of one big tensor would cost a full-size gradient per expert.
        self.dense = nn.ParameterList(
            torch.randn(rows, columns) / math.sqrt(columns) for _ in range(experts)
        )

    def matrix(self, expert: int, dtype: torch.dtype) -> Float[Tensor, "rows columns"]:
        return self.dense[expert].to(dtype)

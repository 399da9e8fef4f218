"""Where an expert's weight matrix comes from: packed MXFP4 at inference, a parameter in training.

Packed experts stay packed; a matrix is dequantized when first used and kept in an `ExpertCache`
shared by the whole model, which forgets the least recently used ones beyond its byte budget.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from threading import Lock
from typing import Any, cast

import torch
from jaxtyping import Float
from oss_kernels import mxfp4
from torch import Tensor, nn


class ExpertCache:
    """Dequantized matrices, at most `budget_bytes` of them (None: no bound).

    A matrix is dequantized again after its bank was edited in place or replaced. An in-place edit
    through `.data` or NumPy is not seen: it leaves no mark on the tensor.
    """

    def __init__(self, budget_bytes: int | None = None) -> None:
        self.budget_bytes = budget_bytes
        self.bytes = 0
        self._lock = Lock()  # threads may share a model
        self._matrices: OrderedDict[tuple[int, int, torch.dtype], Tensor] = OrderedDict()
        self._sources: dict[int, tuple[Tensor, Tensor, tuple[int, ...]]] = {}  # of each bank

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy of a model gets its own empty cache."""
        return ExpertCache, (self.budget_bytes,)

    def get(
        self, packed: "PackedExperts", experts: Sequence[int], dtype: torch.dtype
    ) -> Iterable[Tensor]:
        """The matrices of these experts, in order; those that are not kept are made one by one."""
        blocks, scales, bank = packed.blocks, packed.scales, id(packed)
        if blocks.is_inference() or scales.is_inference():
            # Inference tensors have no version that would show an edit: nothing is kept.
            return (dequantize(blocks[n], scales[n], dtype) for n in experts)
        # Versions count in-place edits; the address shows an assignment to `.data`.
        marks = blocks._version, scales._version, blocks.data_ptr(), scales.data_ptr()
        with self._lock:
            known = self._sources.get(bank)
            if not (known and known[0] is blocks and known[1] is scales and known[2] == marks):
                self._forget(bank)
                self._sources[bank] = blocks, scales, marks
            kept = [self._find((bank, expert, dtype)) for expert in experts]
        if any(matrix is None for matrix in kept):
            return self._make(packed, experts, dtype)
        return cast("list[Tensor]", kept)

    def _make(
        self, packed: "PackedExperts", experts: Sequence[int], dtype: torch.dtype
    ) -> Iterator[Tensor]:
        """As `get`, one matrix at a time."""
        for expert in experts:
            key = id(packed), expert, dtype
            with self._lock:
                matrix = self._find(key)
                if matrix is None:
                    matrix = dequantize(packed.blocks[expert], packed.scales[expert], dtype)
                    self._keep(key, matrix)
            yield matrix

    def _find(self, key: tuple[int, int, torch.dtype]) -> Tensor | None:
        matrix = self._matrices.get(key)
        if matrix is not None:
            self._matrices.move_to_end(key)
        return matrix

    def _forget(self, bank: int) -> None:
        """Forget the matrices of a bank that has changed since."""
        for key in [key for key in self._matrices if key[0] == bank]:
            self.bytes -= self._matrices.pop(key).nbytes

    def _keep(self, key: tuple[int, int, torch.dtype], matrix: Tensor) -> None:
        """Keep a matrix, and forget the least recently used ones beyond the budget."""
        self._matrices[key] = matrix
        self.bytes += matrix.nbytes
        while self.budget_bytes is not None and self.bytes > self.budget_bytes:
            _, forgotten = self._matrices.popitem(last=False)
            self.bytes -= forgotten.nbytes


def dequantize(blocks: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """One expert's matrix [rows columns]."""
    # A tensor of inference mode can never be part of a backward, and this one is kept.
    with torch.inference_mode(False), torch.no_grad():
        matrix = mxfp4.dequantize(blocks, scales, dtype)
        # In float32 on x86 a few rows go faster through columns laid out one by one.
        return matrix.T.contiguous().T if dtype == torch.float32 else matrix


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

    def matrices(
        self, experts: Sequence[int], dtype: torch.dtype
    ) -> Iterable[Float[Tensor, "rows columns"]]:
        return self.cache.get(self, experts, dtype)


class DenseExperts(nn.Module):
    """One trainable matrix per expert."""

    def __init__(self, experts: int, rows: int, columns: int) -> None:
        super().__init__()
        # One parameter each: a slice of one big tensor would cost a full-size gradient per expert.
        self.dense = nn.ParameterList(
            torch.randn(rows, columns) / math.sqrt(columns) for _ in range(experts)
        )

    def matrices(
        self, experts: Sequence[int], dtype: torch.dtype
    ) -> Iterable[Float[Tensor, "rows columns"]]:
        return (self.dense[expert].to(dtype) for expert in experts)

"""Where an expert's weight matrices come from.

Each expert has two matrices. One object here holds the first, or the second, of all experts of a
layer. In training, and for fine-tunes stored in BF16, it is `DenseExperts`, one parameter per
expert. Otherwise it is `PackedExperts`, four bits per weight in the MXFP4 format of the published
checkpoints. A packed matrix is dequantized when a token first chooses its expert. An `ExpertCache`,
shared by all layers, keeps recently used matrices, up to a number of bytes.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Lock
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from oss_kernels import mxfp4
from torch import Tensor, nn

Decode = Callable[[Tensor, Tensor, torch.dtype], Tensor]
"""`mxfp4.dequantize`, or another function of the same arguments."""


class ExpertMatrices(nn.Module):
    """The first, or the second, matrix of every expert of a layer."""

    def matrices(
        self, experts: Sequence[int], dtype: torch.dtype
    ) -> Iterable[Float[Tensor, "rows columns"]]:
        """The matrices of these experts, in order."""
        raise NotImplementedError

    def linear(
        self,
        experts: Sequence[int],
        inputs: Sequence[Float[Tensor, "token columns"]],
        bias: Float[Tensor, "expert rows"],
    ) -> list[Float[Tensor, "token rows"]]:
        """Each of these experts' matrix times its own inputs, plus its bias."""
        pieces = zip(experts, self.matrices(experts, inputs[0].dtype), inputs, strict=True)
        return [F.linear(x, matrix, bias.select(0, expert)) for expert, matrix, x in pieces]


class DenseExperts(ExpertMatrices):
    """One dense matrix per expert: a parameter, for training or as a fine-tune stores it."""

    def __init__(self, experts: int, rows: int, columns: int) -> None:
        super().__init__()
        # One parameter per expert, so an expert's gradient has the size of one matrix, not of all.
        self.dense = nn.ParameterList(
            torch.randn(rows, columns) / math.sqrt(columns) for _ in range(experts)
        )

    def matrices(
        self, experts: Sequence[int], dtype: torch.dtype
    ) -> Iterable[Float[Tensor, "rows columns"]]:
        """The matrices of these experts, in order."""
        return (self.dense[expert].to(dtype) for expert in experts)


class PackedExperts(ExpertMatrices):
    """One MXFP4 matrix per expert: blocks [expert rows groups 16], scales [expert rows groups].

    A group is 32 neighboring weights of a row: 16 bytes in `blocks` and one shared scale.
    """

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
        """The matrices of these experts, in order."""
        return self.cache.get(self, experts, dtype)


MakeExperts = Callable[[int, int, int], ExpertMatrices]
"""(experts, rows, columns) -> their matrices."""


def has_dense_experts(model: nn.Module) -> bool:
    """Whether the model has `DenseExperts`, which the kernels cannot read."""
    return any(isinstance(module, DenseExperts) for module in model.modules())


class ExpertCache:
    """Matrices dequantized by `decode`, at most `budget_bytes` of them. None: no limit.

    The matrices of `PackedExperts` that were edited or replaced are dequantized again. An in-place
    edit through `.data` or NumPy is not detected, because it does not change a tensor's version.
    """

    def __init__(self, budget_bytes: int | None = None, decode: Decode = mxfp4.dequantize) -> None:
        self.budget_bytes, self.decode = budget_bytes, decode
        self.bytes = 0
        self._lock = Lock()  # threads may share a model
        self._matrices: OrderedDict[tuple[int, int, torch.dtype], Tensor] = OrderedDict()
        self._sources: dict[int, tuple[Tensor, Tensor, tuple[int, ...]]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy of a model gets its own empty cache."""
        return ExpertCache, (self.budget_bytes, self.decode)

    def get(
        self, packed: PackedExperts, experts: Sequence[int], dtype: torch.dtype
    ) -> Iterable[Tensor]:
        """The matrices of these experts, in order; missing ones are dequantized when reached."""
        blocks, scales = packed.blocks, packed.scales
        if blocks.is_inference() or scales.is_inference():
            # Inference tensors have no version that would show an edit, so nothing is cached.
            return (dequantize(blocks[n], scales[n], dtype, self.decode) for n in experts)
        # The versions count edits in place; the addresses show an assignment to `.data`.
        state = blocks._version, scales._version, blocks.data_ptr(), scales.data_ptr()
        with self._lock:
            source = self._sources.get(id(packed))
            if not (source and source[0] is blocks and source[1] is scales and source[2] == state):
                self._forget(packed)
                self._sources[id(packed)] = blocks, scales, state
            cached = [self._find((id(packed), expert, dtype)) for expert in experts]
        if any(matrix is None for matrix in cached):
            return self._find_or_dequantize(packed, experts, dtype)
        return cast("list[Tensor]", cached)

    def _find_or_dequantize(
        self, packed: PackedExperts, experts: Sequence[int], dtype: torch.dtype
    ) -> Iterator[Tensor]:
        """One matrix at a time, so a small budget is never exceeded by many of them."""
        for expert in experts:
            key = id(packed), expert, dtype
            with self._lock:
                matrix = self._find(key)
                if matrix is None:
                    blocks, scales = packed.blocks[expert], packed.scales[expert]
                    matrix = dequantize(blocks, scales, dtype, self.decode)
                    self._add(key, matrix)
            yield matrix

    def _find(self, key: tuple[int, int, torch.dtype]) -> Tensor | None:
        matrix = self._matrices.get(key)
        if matrix is not None:
            self._matrices.move_to_end(key)
        return matrix

    def _forget(self, packed: PackedExperts) -> None:
        """Remove the matrices of packed experts that have changed."""
        for key in [key for key in self._matrices if key[0] == id(packed)]:
            self.bytes -= self._matrices.pop(key).nbytes

    def _add(self, key: tuple[int, int, torch.dtype], matrix: Tensor) -> None:
        """Add a matrix, then remove the least recently used ones until the budget is met."""
        self._matrices[key] = matrix
        self.bytes += matrix.nbytes
        while self.budget_bytes is not None and self.bytes > self.budget_bytes:
            _, removed = self._matrices.popitem(last=False)
            self.bytes -= removed.nbytes


def dequantize(blocks: Tensor, scales: Tensor, dtype: torch.dtype, decode: Decode) -> Tensor:
    """One expert's matrix [rows columns]."""
    # A tensor made in inference mode could never take part in a backward pass.
    with torch.inference_mode(False), torch.no_grad():
        matrix = decode(blocks, scales, dtype)
        # In float32 on x86, products with few rows are faster if the columns are contiguous.
        return matrix.T.contiguous().T if dtype == torch.float32 else matrix

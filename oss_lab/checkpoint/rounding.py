"""How much rounding changes weights: relative RMS error, largest error, blocks without error."""

import re
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from oss_kernels import mxfp4
from torch import Tensor

PIECE = 2**17  # weights; they fit into the cache of one core


def find_kind(name: str) -> str:
    """The kind of a tensor: its Hugging Face name without the number of the layer.

    >>> find_kind("model.layers.0.mlp.experts.down_proj")
    'mlp.experts.down_proj'
    """
    return re.sub(r"^model\.(layers\.\d+\.)?", "", name)


@dataclass
class Rounding:
    """The error of rounding, summed over tensors of a kind.

    Attributes:
        squared_error, squared_weight: sums of squares of the errors, and of the exact weights.
        largest: the largest error of one weight.
        blocks, exact_blocks: MXFP4 blocks of 32 weights, and those that did not change; 0 for
            tensors rounded to BF16.
    """

    squared_error: float = 0.0
    squared_weight: float = 0.0
    largest: float = 0.0
    blocks: int = 0
    exact_blocks: int = 0

    @property
    def relative_rms(self) -> float:
        """RMS of the error, divided by the RMS of the weights."""
        if not self.squared_weight:
            return 0.0
        return (self.squared_error / self.squared_weight) ** 0.5

    @property
    def sentence(self) -> str:
        text = f"relative RMS error {self.relative_rms:.3%}, largest error {self.largest:.3g}"
        if self.blocks:
            text += f", {self.exact_blocks:,} of {self.blocks:,} blocks exact"
        return text

    def add_bf16(self, weight: Float[Tensor, "*shape"], rounded: Float[Tensor, "*shape"]) -> None:
        """Add a tensor that was rounded to BF16."""
        for exact, near in zip(
            weight.reshape(-1).split(PIECE), rounded.reshape(-1).split(PIECE), strict=True
        ):
            self._add(exact.float(), near.float())

    def add_mxfp4(
        self,
        weight: Float[Tensor, "rows width"],
        blocks: UInt8[Tensor, "rows groups 16"],
        scales: UInt8[Tensor, "rows groups"],
    ) -> None:
        """Add a matrix that was rounded to MXFP4. Decodes the bytes that will be written."""
        every_byte = torch.arange(256, dtype=torch.uint8)[:, None]
        numbers = torch.tensor(mxfp4.E2M1_VALUES)[mxfp4.unpack_nibbles(every_byte).int()]
        pairs = numbers.view(torch.int64).flatten()  # one lookup gives two float32
        groups = PIECE // mxfp4.BLOCK
        for exact, codes, scale in zip(
            weight.reshape(-1, mxfp4.BLOCK).split(groups),
            blocks.view(-1, mxfp4.BLOCK // 2).split(groups),
            scales.view(-1).split(groups),
            strict=True,
        ):
            units = pairs.index_select(0, codes.flatten().int()).view(torch.float32)
            powers = torch.ldexp(torch.ones(scale.shape), scale.int() - mxfp4.SCALE_BIAS)
            near = units.view(-1, mxfp4.BLOCK).mul_(powers[:, None])
            largest = self._add(exact.float(), near)
            self.blocks += len(largest)
            self.exact_blocks += int((largest == 0).sum())

    def _add(self, exact: Tensor, near: Tensor) -> Tensor:
        """Returns the largest error of each row."""
        error = near.sub_(exact)
        largest = error.abs().amax(-1)
        self.largest = max(self.largest, float(largest.max()))
        self.squared_error += float(error.flatten().dot(error.flatten()))
        self.squared_weight += float(exact.flatten().dot(exact.flatten()))
        return largest

"""The weights of one layer's experts."""

from dataclasses import dataclass

from jaxtyping import Float, UInt8
from torch import Tensor


@dataclass(frozen=True)
class ExpertWeights:
    """MXFP4 matrices as `mxfp4.dequantise` reads them, and biases in float32 or bfloat16.

    Gate and up are rows of one matrix: row 2i is the gate of number i, row 2i + 1 its up. Of
    `gate_up`, 32 * groups is hidden; of `down` it is width.
    """

    gate_up_blocks: UInt8[Tensor, "expert two_width groups 16"]
    gate_up_scales: UInt8[Tensor, "expert two_width groups"]
    gate_up_bias: Float[Tensor, "expert two_width"]
    down_blocks: UInt8[Tensor, "expert hidden groups 16"]
    down_scales: UInt8[Tensor, "expert hidden groups"]
    down_bias: Float[Tensor, "expert hidden"]

    @property
    def experts(self) -> int:
        return self.gate_up_bias.shape[0]

    @property
    def width(self) -> int:
        return self.gate_up_bias.shape[1] // 2

    @property
    def hidden(self) -> int:
        return self.down_bias.shape[1]

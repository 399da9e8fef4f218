"""The weights of one layer's experts."""

from dataclasses import dataclass, fields

from jaxtyping import Float, UInt8
from torch import Tensor

from oss_kernels.checks import FLOATS, check_axes, check_dtype, check_shape
from oss_kernels.mxfp4.checks import check_packed
from oss_kernels.mxfp4.reference import BLOCK


@dataclass(frozen=True)
class ExpertWeights:
    """MXFP4 matrices in the layout of `mxfp4.dequantize`, and biases in float32 or bfloat16.

    Gate and up are rows of one matrix: row 2i is the gate of unit i, row 2i + 1 its up. 32 * groups
    is hidden for `gate_up` and width for `down`.
    """

    gate_up_blocks: UInt8[Tensor, "expert two_width groups 16"]
    gate_up_scales: UInt8[Tensor, "expert two_width groups"]
    gate_up_bias: Float[Tensor, "expert two_width"]
    down_blocks: UInt8[Tensor, "expert hidden groups 16"]
    down_scales: UInt8[Tensor, "expert hidden groups"]
    down_bias: Float[Tensor, "expert hidden"]

    def __post_init__(self) -> None:
        """Raises ValueError if shapes or dtypes do not match."""
        experts, two_width = check_axes("gate_up_bias", self.gate_up_bias, "expert two_width")
        _, hidden = check_axes("down_bias", self.down_bias, "expert hidden")
        check_shape("down_bias", self.down_bias, experts, hidden)
        check_shape("gate_up_scales", self.gate_up_scales, experts, two_width, hidden // BLOCK)
        check_shape("down_scales", self.down_scales, experts, hidden, two_width // 2 // BLOCK)
        check_packed(self.gate_up_blocks, self.gate_up_scales, "gate_up_")
        check_packed(self.down_blocks, self.down_scales, "down_")
        check_dtype("gate_up_bias", self.gate_up_bias, *FLOATS)
        check_dtype("down_bias", self.down_bias, *FLOATS)
        if hidden % BLOCK or two_width % (2 * BLOCK):
            sizes = f"hidden is {hidden} and width {two_width / 2:g}"
            raise ValueError(f"{sizes}; they must be multiples of {BLOCK}")

    def contiguous(self) -> "ExpertWeights":
        """The same weights with all tensors contiguous. Tensors that already are are not copied."""
        return ExpertWeights(*(getattr(self, field.name).contiguous() for field in fields(self)))

    @property
    def experts(self) -> int:
        return self.gate_up_bias.shape[0]

    @property
    def width(self) -> int:
        return self.gate_up_bias.shape[1] // 2

    @property
    def hidden(self) -> int:
        return self.down_bias.shape[1]

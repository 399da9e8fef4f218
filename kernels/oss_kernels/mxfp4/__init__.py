"""MXFP4: four-bit floating point in blocks of 32 that share one power-of-two scale.

`reference` is the coder in plain torch; `kernel` is Triton's, and `decode` what other kernels read
with (import these two only where Triton is).
"""

from oss_kernels.mxfp4.reference import (
    BLOCK,
    E2M1_VALUES,
    NAN_SCALE,
    SCALE_BIAS,
    Rule,
    dequantize,
    pack_nibbles,
    quantize,
    unpack_nibbles,
)

__all__ = [
    "BLOCK",
    "E2M1_VALUES",
    "NAN_SCALE",
    "SCALE_BIAS",
    "Rule",
    "dequantize",
    "pack_nibbles",
    "quantize",
    "unpack_nibbles",
]

"""MXFP4: four-bit floating point in blocks of 32 that share one power-of-two scale.

`reference` quantizes and dequantizes in plain torch, `kernel` in Triton. `pack` quantizes faster on
a CPU, in integer arithmetic. `decode` has the Triton functions with which other kernels read MXFP4.
Import `kernel` and `decode` only if Triton is installed.
"""

from oss_kernels.mxfp4.pack import pack
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
    "pack",
    "pack_nibbles",
    "quantize",
    "unpack_nibbles",
]

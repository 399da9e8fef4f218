"""MXFP4: four-bit floating point in blocks of 32 that share one power-of-two scale."""

from oss_kernels.mxfp4.reference import (
    BLOCK,
    E2M1_VALUES,
    NAN_SCALE,
    SCALE_BIAS,
    dequantise,
    pack_nibbles,
    quantise,
    unpack_nibbles,
)

__all__ = [
    "BLOCK",
    "E2M1_VALUES",
    "NAN_SCALE",
    "SCALE_BIAS",
    "dequantise",
    "pack_nibbles",
    "quantise",
    "unpack_nibbles",
]

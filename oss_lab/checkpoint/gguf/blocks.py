"""MXFP4 in GGUF's order of bytes.

Both formats have one scale byte per block of 32 numbers and 16 bytes with two codes each. In a
checkpoint, byte k holds numbers 2k and 2k + 1. In GGUF, byte k holds numbers k and k + 16, and the
scale byte comes first. In both, the lower-numbered one is in the low four bits. No number changes.
"""

import torch
from jaxtyping import UInt8
from torch import Tensor


def to_gguf_blocks(
    blocks: UInt8[Tensor, "*row block 16"], scales: UInt8[Tensor, "*row block"]
) -> UInt8[Tensor, "*row bytes"]:
    """The bytes of every row: its blocks of 17 bytes, one after another."""
    codes = torch.stack((blocks & 15, blocks >> 4), dim=-1).flatten(-2)  # 32 per block, in order
    halves = codes[..., :16] | (codes[..., 16:] << 4)
    return torch.cat((scales[..., None], halves), dim=-1).flatten(-2)

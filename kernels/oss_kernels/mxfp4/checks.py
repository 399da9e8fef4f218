"""What everything that reads MXFP4 refuses."""

import torch
from torch import Tensor

from oss_kernels.checks import check_dtype, check_shape
from oss_kernels.mxfp4.reference import BLOCK


def check_packed(blocks: Tensor, scales: Tensor, name: str = "") -> None:
    """blocks [*rows groups 16] and scales [*rows groups], bytes. Raises ValueError."""
    check_shape(f"{name}blocks", blocks, *scales.shape, BLOCK // 2)
    check_dtype(f"{name}blocks", blocks, torch.uint8)
    check_dtype(f"{name}scales", scales, torch.uint8)

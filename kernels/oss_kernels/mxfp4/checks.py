"""Checks of packed MXFP4 weights, shared by everything that reads them."""

import torch
from torch import Tensor

from oss_kernels.checks import check_dtype, check_shape
from oss_kernels.mxfp4.reference import BLOCK


def check_packed(blocks: Tensor, scales: Tensor, name: str = "") -> None:
    """Raises ValueError unless blocks [*rows groups 16] and scales [*rows groups] are uint8."""
    check_shape(f"{name}blocks", blocks, *scales.shape, BLOCK // 2)
    check_dtype(f"{name}blocks", blocks, torch.uint8)
    check_dtype(f"{name}scales", scales, torch.uint8)

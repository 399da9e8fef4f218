"""Random weights with the shapes and dtypes of a real checkpoint, for benchmarks and tests."""

import torch
from torch import Tensor

from oss_lab.checkpoint.layouts import tensor_table
from oss_lab.config import ModelConfig


def random_tensors(config: ModelConfig, seed: int = 0) -> dict[str, Tensor]:
    """All tensors under their original names: bfloat16 with standard deviation 0.1, random MXFP4
    blocks, and scales from 2^-9 to 2^-1."""
    generator = torch.Generator().manual_seed(seed)
    tensors = dict[str, Tensor]()
    for spec in tensor_table(config):
        if spec.dtype == "BF16":
            values = torch.randn(spec.shape, generator=generator) * 0.1
            tensors[spec.name] = values.bfloat16()
        else:
            low, high = (118, 127) if spec.role == "expert scales" else (0, 256)
            values = torch.randint(low, high, spec.shape, generator=generator, dtype=torch.uint8)
            tensors[spec.name] = values
    return tensors
